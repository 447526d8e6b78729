"""The semantic tier over gRPC on a real Redis: replicas, restarts, invalidation, faults."""

from __future__ import annotations

from typing import Any

import pytest
from parley.cache.v1 import cache_pb2 as pb
from pydantic import SecretStr

from parley_cache.bootstrap import serving
from parley_cache.config import CacheSettings
from parley_kit.errors import StartupError
from parley_kit.rpc.client import call_unary
from support.cache_wire import Serve, wire_query, wire_store
from support.meaning import WordModel
from support.poll import until
from support.servers import ValkeyServer

pytestmark = pytest.mark.integration

ASKED = "How can I reset my password?"
ALIKE = "What is the way to reset a password?"


async def look(stub: Any, question: str = ALIKE, **partition: object) -> pb.LookupResponse:
    request = pb.LookupRequest(query=wire_query(question, **partition), allow_semantic=True)
    found: pb.LookupResponse = await call_unary(stub.Lookup, request, timeout=10)
    return found


async def keep(stub: Any, question: str = ASKED, **changes: object) -> None:
    stamp = (await look(stub, question)).stamp
    request = wire_store(question, "Like this.", stamp=stamp, **changes)
    stored = await call_unary(stub.Store, request, timeout=10)
    assert stored.stored, stored.reason


async def served(stub: Any, question: str = ALIKE) -> pb.LookupResponse:
    async def hit() -> pb.LookupResponse | None:
        found = await look(stub, question)
        return found if found.verdict == pb.VERDICT_SEMANTIC else None

    found = await until(hit, what="the question to be answered by meaning")
    assert found is not None
    return found


async def refused(stub: Any, question: str = ALIKE) -> None:
    assert (await look(stub, question)).verdict == pb.VERDICT_MISS


async def test_a_paraphrase_is_answered_with_similarity_and_reason(
    redis_url: str, serve: Serve
) -> None:
    async with serve(redis_url, model=WordModel()) as (stub, _):
        await keep(stub)
        found = await served(stub)
        assert found.entry.answer == "Like this."
        assert found.reason
        assert 0 < found.similarity <= 1
        assert (await look(stub, ASKED)).verdict == pb.VERDICT_EXACT
        assert (await look(stub, user="bob")).verdict == pb.VERDICT_MISS
        trap = await look(stub, "What is the way to not reset a password?")
        assert trap.verdict == pb.VERDICT_MISS
        assert trap.reason != "not_found"
        assert trap.HasField("similarity")


async def test_other_replicas_hear_of_answers_and_of_their_end(
    redis_url: str, serve: Serve
) -> None:
    shared = {"key_prefix": "test:semantic", "model": WordModel()}
    async with serve(redis_url, **shared) as (one, _), serve(redis_url, **shared) as (two, _):
        everything = pb.InvalidateRequest(tenant="acme", all=True)
        await call_unary(one.Invalidate, everything, timeout=10)
        for selector in (
            {"chat_id": "chat-2"},
            {"user": "ann"},
            {"model": "smol"},
            {"all": True},
        ):
            question = f"{ASKED} {'!' * len(selector)}"
            chat = "chat-2" if "chat_id" in selector else "chat-1"
            await keep(one, question, source_chat_id=chat, source_message_id=f"{chat}-1")
            await served(two)
            dry = pb.InvalidateRequest(tenant="acme", dry_run=True, **selector)
            assert (await call_unary(two.Invalidate, dry, timeout=10)).entries == 1
            await served(one)
            gone = pb.InvalidateRequest(tenant="acme", **selector)
            assert (await call_unary(two.Invalidate, gone, timeout=10)).entries == 1
            await refused(one)
            await refused(two)


@pytest.mark.parametrize(
    ("index", "server"), [("local", "redis_url"), ("vector_sets", "redis8_url")]
)
async def test_a_replica_that_starts_finds_what_others_stored(
    index: str, server: str, serve: Serve, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(server)
    shared = {"key_prefix": f"test:{index}", "model": WordModel(), "index": index}
    async with serve(url, **shared) as (stub, _):
        everything = pb.InvalidateRequest(tenant="acme", all=True)
        await call_unary(stub.Invalidate, everything, timeout=10)
        await keep(stub)
        await served(stub)
    async with serve(url, **shared) as (stub, _):
        await served(stub)
        await call_unary(stub.Invalidate, everything, timeout=10)
        await refused(stub)


async def test_with_redis_gone_and_back_empty_look_ups_are_misses_and_then_work_again(
    valkey_server: ValkeyServer, serve: Serve
) -> None:
    async with serve(
        valkey_server.url, model=WordModel(), index_reconcile_seconds=0.2, redis_connect_seconds=0.2
    ) as (stub, _):
        await keep(stub)
        await served(stub)
        valkey_server.kill()
        gone = await look(stub)
        assert (gone.verdict, gone.reason) == (pb.VERDICT_MISS, "store_unavailable")
        valkey_server.start()

        async def back() -> bool:
            return (await look(stub)).reason not in ("store_unavailable", "semantic_timeout")

        await until(back)
        await refused(stub)
        await keep(stub)
        await served(stub)


async def test_without_its_model_the_exact_tier_serves_alone(redis_url: str, serve: Serve) -> None:
    for missing in ({}, {"embedding_model": "/nowhere"}, {"semantic": "off"}):
        async with serve(redis_url, **missing) as (stub, _):
            await keep(stub)
            found = await look(stub)
            assert (found.verdict, found.reason) == (pb.VERDICT_MISS, "not_found")
            assert (await look(stub, ASKED)).verdict == pb.VERDICT_EXACT


async def test_where_it_must_be_on_a_missing_model_ends_the_start(redis_url: str) -> None:
    settings = CacheSettings(
        redis_url=SecretStr(redis_url),
        port=0,
        admin_port=0,
        semantic="on",
        embedding_model="/nowhere",
    )
    with pytest.raises(StartupError, match=r"model\.onnx is missing"):
        async with serving(settings):
            pytest.fail("it started")


async def test_a_calibration_of_another_model_is_not_used(redis_url: str, serve: Serve) -> None:
    model = WordModel()
    async with serve(redis_url, model=model) as (stub, _):
        await keep(stub)
        await served(stub)
        model = WordModel("words:2")
        settings = CacheSettings(
            redis_url=SecretStr(redis_url), port=0, admin_port=0, semantic="on"
        )
        with pytest.raises(StartupError, match="words:2"):
            async with serving(settings, model=model):
                pytest.fail("it started")
