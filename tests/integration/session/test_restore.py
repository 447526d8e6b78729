"""A store put back to what it was when it was copied: what goes on, what is forgotten, what ends.

The copy has what `mongodump` writes: each collection's documents as BSON, one after the other.
Redis is as it was at the loss, later than the copy, or lost as well.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from parley.session.v1 import session_pb2 as pb
from pymongo import MongoClient
from redis import Redis

from parley_kit.errors import ServiceError
from parley_session.operate.__main__ import main
from support.poll import until
from support.servers import MongoDatabase, ValkeyServer
from support.session_process import Settings, session_replica, surroundings
from support.session_service import Stream, to_its_end

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
Copy = dict[str, bytes]
QUESTION: dict[str, Any] = {"max_tokens": 400, "temperature": 0.0}
KEPT = "[[sim:length tokens=12]] Which sea is the deepest?"
LOST = "[[sim:length tokens=12]] Which lake is the deepest?"
LONG = "[[sim:slow itl=0.05]] At length"


def copied(database: MongoDatabase) -> Copy:
    """Every collection of a database."""
    client: MongoClient[RawBSONDocument]
    with MongoClient(database.uri, document_class=RawBSONDocument) as client:
        found = client[database.name]
        return {
            name: b"".join(document.raw for document in found[name].find())
            for name in found.list_collection_names(filter={"name": {"$regex": "^(?!system)"}})
        }


def put_back(database: MongoDatabase, copy: Copy) -> None:
    """Have the database hold what was copied and nothing else."""
    client: MongoClient[RawBSONDocument]
    with MongoClient(database.uri, document_class=RawBSONDocument) as client:
        found = client[database.name]
        for name in {*found.list_collection_names(), *copy}:
            found[name].delete_many({})
            if documents := bson.decode_all(copy.get(name, b""), RAW):
                found[name].insert_many(documents)


@pytest.fixture(name="settings")
async def _settings(
    mongodb_database: MongoDatabase, valkey_server: ValkeyServer
) -> AsyncIterator[Settings]:
    async with surroundings(mongodb_database, valkey_server.url) as found:
        yield found


def keyed(key: str) -> dict[str, Any]:
    """A request's key, and what says that it is the same request."""
    return {"idempotency_key": key, "body_digest": hashlib.sha256(key.encode()).digest()}


@pytest.mark.parametrize("redis", ["kept", "lost"])
async def test_a_restored_store_goes_on_from_its_copy(
    redis: str,
    settings: Settings,
    mongodb_database: MongoDatabase,
    valkey_server: ValkeyServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    going_on = Stream()
    async with session_replica(settings, tmp_path / "before.log") as (_, client):
        kept = await client.complete(KEPT, **QUESTION, **keyed("before"))
        assert kept.accepted is not None
        reading = asyncio.create_task(client.complete(LONG, max_tokens=60, into=going_on))
        await until(lambda: len(going_on.text) > 5)
        copy = await asyncio.to_thread(copied, mongodb_database)
        await reading
        later = await client.complete(LOST, **QUESTION, **keyed("after"))
        again = await client.complete(LOST, **QUESTION)
        assert again.done is not None
        assert again.done.cache.status == pb.CACHE_STATUS_EXACT
    assert going_on.accepted is not None
    assert later.accepted is not None

    await asyncio.to_thread(put_back, mongodb_database, copy)
    if redis == "lost":
        with Redis.from_url(valkey_server.url) as server:
            server.flushall()

    async with session_replica(settings, tmp_path / "after.log") as (_, client):
        # What was being made when the copy was: whole where its log stands, ended where not.
        ended = await to_its_end(client, going_on.accepted.run_id)
        if redis == "kept":
            assert ended.done is not None
            assert ended.text == ended.done.message.content == going_on.text
        else:
            assert ended.failed is not None
            assert ended.failed.problem.code == "log_lost"
        # A key of before the copy gives the answer that there was; a later one is as new, and
        # its answer, though it may lie in the cache, is not served: its message is not there.
        replayed = await client.complete(KEPT, **QUESTION, **keyed("before"))
        assert replayed.accepted is not None
        assert replayed.accepted.replayed
        assert replayed.accepted.run_id == kept.accepted.run_id
        assert replayed.text == kept.text
        anew = await client.complete(LOST, **QUESTION, **keyed("after"))
        assert anew.accepted is not None
        assert anew.done is not None
        assert not anew.accepted.replayed
        assert anew.done.cache.status == pb.CACHE_STATUS_MISS
        with pytest.raises(ServiceError, match="chat"):
            await client.call("GetChat", pb.GetChatRequest(chat_id=later.accepted.chat_id))
        more = await client.complete("And then?", chat=kept.accepted.chat_id, max_tokens=8)
        assert more.done is not None
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        assert await asyncio.to_thread(main, ["verify", "--settle", "0.1"]) == 0
