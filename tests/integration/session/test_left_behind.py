"""What a fault leaves in the stores is found: each kind is planted in real ones."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
from redis.asyncio import Redis

from parley_kit.ids import uuid7
from parley_session.queue.base import Ticket
from parley_session.queue.redis import RedisRunQueue
from parley_session.runs.log import LogLimits
from parley_session.runs.redis_client import RedisLogOptions
from parley_session.runs.redis_log import RedisRunLog
from parley_session.store.mongo.client import MongoOptions
from parley_session.store.mongo.store import MongoStore
from support.evidence import QUEUE_TOTAL, look_into_redis, queued, unended
from support.ledger import Ledger
from support.servers import MongoDatabase, ValkeyServer, running
from support.session_data import make_chat, make_outcome, make_run, make_turn
from support.verdict import Evidence, Kind, judge

pytestmark = pytest.mark.integration
TTL = 600.0
TICKET = Ticket("a-run", "acme", "ann")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """One whose keys are this module's own."""
    with running(ValkeyServer(tmp_path_factory.mktemp("valkey"))) as started:
        yield started


@pytest.fixture
async def redis(server: ValkeyServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url, decode_responses=True) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def queue(server: ValkeyServer, redis: Redis) -> AsyncIterator[RedisRunQueue]:
    opened = RedisRunQueue(RedisLogOptions(server.url), uuid.uuid4().hex)
    yield opened
    await opened.close()


async def residue(server: ValkeyServer) -> list[str]:
    """What is held against the keys of a server where no run is known."""
    evidence = Evidence()
    await look_into_redis(server.url, evidence)
    verdict = judge(Ledger(), evidence, log_ttl_seconds=TTL)
    assert verdict.count(*Kind) == verdict.count(Kind.RESIDUE)
    return [finding.subject for finding in verdict.findings]


async def test_a_run_that_waits_a_place_and_what_was_taken_are_found_until_they_are_gone(
    queue: RedisRunQueue, server: ValkeyServer
) -> None:
    await queue.reserve(TICKET)
    assert await queued(server.url), "a place that is kept"
    await queue.put(TICKET)
    assert f"{QUEUE_TOTAL} is 1" in await queued(server.url)
    delivery = await queue.take()
    assert delivery is not None
    assert await queued(server.url), "taken, and not acknowledged"
    assert await residue(server)
    await queue.done(delivery)
    assert await queued(server.url) == []
    assert await residue(server) == []


async def test_a_count_that_went_wrong_is_found(redis: Redis, server: ValkeyServer) -> None:
    await redis.set(QUEUE_TOTAL, 2)
    assert await queued(server.url) == [f"{QUEUE_TOTAL} is 2"]
    assert await residue(server)


async def test_a_key_that_never_expires_is_found_and_one_that_does_is_not(
    redis: Redis, server: ValkeyServer
) -> None:
    await redis.set("parley:somebody's", "text", ex=60)
    assert await residue(server) == []
    await redis.persist("parley:somebody's")
    assert await residue(server) == ["parley:somebody's"]


async def test_the_log_of_no_run_and_one_that_stays_for_too_long_are_found(
    redis: Redis, server: ValkeyServer
) -> None:
    log = RedisRunLog(RedisLogOptions(server.url, LogLimits(ttl_seconds=TTL)))
    run = uuid7()
    try:
        await log.create(run, 1)
        (key,) = await residue(server)
        assert run in key
        for seconds in (None, TTL + 60):
            await (redis.persist(key) if seconds is None else redis.expire(key, round(seconds)))
            evidence = Evidence(stored_runs={run: {"_id": run}})
            await look_into_redis(server.url, evidence)
            (finding,) = judge(Ledger(), evidence, log_ttl_seconds=TTL).findings
            assert "expires in" in finding.detail
    finally:
        await log.close()


async def test_a_run_that_is_held_and_a_turn_that_is_pending_are_found_until_they_end(
    mongodb_database: MongoDatabase,
) -> None:
    store = MongoStore(MongoOptions(mongodb_database.uri, mongodb_database.name))
    try:
        chat, run = make_chat(pending=(turn := make_turn(),)), make_run()
        await store.insert_chat(chat)
        await store.insert_run(run)
        assert await store.hold_run(run.id, 0, "a holder") is not None
        left = partial(unended, mongodb_database.uri, mongodb_database.name)
        assert sorted(await left()) == sorted([run.id, chat.id])
        assert await store.commit_run(run.id, 1, make_outcome())
        assert await left() == [chat.id]
        settled = await store.settle_turn(
            chat.id, turn.run, messages=2, title=None, at=chat.created_at
        )
        assert settled is not None
        assert await left() == []
    finally:
        await store.close()
