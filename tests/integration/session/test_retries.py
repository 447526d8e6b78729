"""Keys, attaching and usage over gRPC, with MongoDB and the log's server, on two replicas."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from parley.session.v1 import session_pb2 as pb

from parley_kit.errors import ServiceError
from parley_kit.ids import uuid7
from support.inference import sim_replica
from support.poll import until
from support.servers import MongoDatabase
from support.session_service import BOB, Client, session_replica

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
STRANGERS = [BOB, (("parley-tenant", "other"), ("parley-user-bin", b"alice"))]
DIGEST = b"d" * 32


@pytest.fixture
async def pair(mongodb_database: MongoDatabase, redis_url: str) -> AsyncIterator[list[Client]]:
    """Clients of two replicas over one engine, one database and one log."""
    async with AsyncExitStack() as stack:
        engine, _ = await stack.enter_async_context(sim_replica(sim_itl=0.005, sim_faults=True))
        clients = []
        for _ in range(2):
            _, client = await stack.enter_async_context(
                session_replica(
                    mongodb_uri=mongodb_database.uri,
                    mongodb_database=mongodb_database.name,
                    log_redis_url=redis_url,
                    inference_targets=f"127.0.0.1:{engine.port}",
                    lease_seconds=1.0,
                    sweep_seconds=0.2,
                )
            )
            clients.append(client)

        async def known() -> bool:
            listed = [await c.call("ListModels", pb.ListModelsRequest()) for c in clients]
            return all(answer.models for answer in listed)

        await until(known, what="the engine in both fleets")
        yield clients


def key() -> dict[str, Any]:
    return {"idempotency_key": uuid.uuid4().hex, "body_digest": DIGEST}


async def test_equal_requests_at_two_replicas_at_once_are_one_run(pair: list[Client]) -> None:
    for _ in range(6):
        asked = key()
        streams = await asyncio.gather(*(pair[n % 2].complete("Once.", **asked) for n in range(6)))
        assert len({stream.acceptance.run_id for stream in streams}) == 1
        assert sum(not stream.acceptance.replayed for stream in streams) == 1
        assert len({stream.text for stream in streams}) == 1
        chat = streams[0].acceptance.chat_id
        stored = await pair[0].call("GetChat", pb.GetChatRequest(chat_id=chat, limit=10))
        assert len(stored.messages) == 2


async def test_a_background_call_ends_when_its_turn_is_stored(pair: list[Client]) -> None:
    stream = await pair[0].complete("[[sim:length tokens=60]] Later.", background=True)
    assert stream.done is None
    assert stream.accepted is not None
    assert stream.accepted.new_chat
    whole = await pair[1].attach(stream.accepted.run_id)
    assert whole.answer.message.content == whole.text


async def test_a_run_is_read_from_every_place_by_every_replica(pair: list[Client]) -> None:
    made = await pair[0].complete("Grüße, please.")
    content = made.text.encode()
    for offset in range(0, len(content) + 2):
        inside = offset < len(content) and content[offset] & 0xC0 == 0x80
        if inside or offset > len(content):
            with pytest.raises(ServiceError) as refused:
                await pair[1].attach(made.answer.run_id, offset)
            assert refused.value.code == "bad_event_id"
        else:
            rest = await pair[1].attach(made.answer.run_id, offset)
            assert rest.text.encode() == content[offset:]
            assert rest.done == made.done


async def test_what_is_somebody_elses_is_not_found(pair: list[Client]) -> None:
    asked = key()
    made = await pair[0].complete("Mine.", **asked)
    today = datetime.now(UTC).date()
    days = pb.GetUsageRequest(from_day=str(today - timedelta(days=1)), to_day=str(today))
    for stranger in STRANGERS:
        other = pair[1].as_user(stranger)
        for offset in (0, 3, 99_999):
            with pytest.raises(ServiceError) as refused:
                await other.attach(made.answer.run_id, offset)
            assert refused.value.code == "not_found"
        theirs = await other.complete("Mine.", **asked)
        assert theirs.answer.run_id != made.answer.run_id
        with pytest.raises(ServiceError) as refused:
            await other.complete("Mine.", chat=made.acceptance.chat_id, **key())
        assert refused.value.code == "not_found"
        used = await other.call("GetUsage", days)
        assert sum(day.runs for day in used.days) == 1


async def test_an_empty_chat_is_made_once_under_its_key(pair: list[Client]) -> None:
    asked = key()
    made = await asyncio.gather(
        *(
            pair[n % 2].call("CreateChat", pb.CreateChatRequest(chat_id=uuid7(), **asked))
            for n in range(6)
        )
    )
    assert len({answer.chat.chat_id for answer in made}) == 1
    assert sum(not answer.replayed for answer in made) == 1
