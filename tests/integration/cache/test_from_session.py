"""The session's client of the cache, over gRPC: scopes, leases and their renewal."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from parley_kit.replicas import parse_targets
from parley_session.answers.base import Answer, Hit, Miss, Query
from parley_session.answers.grpc_cache import GrpcAnswerCache
from parley_session.domain.model import CacheStatus, FinishReason
from support.cache_wire import Serve
from support.poll import until

pytestmark = pytest.mark.integration
DIGEST = hashlib.sha256(b"").digest()


def asked(user: str, question: str = "Why do herons stand still?", *, shared: bool) -> Query:
    return Query(
        tenant="acme",
        user=user,
        model="smol",
        model_revision="r1",
        options_digest=DIGEST,
        system_digest=DIGEST,
        context_fingerprint=DIGEST,
        context_messages=0,
        question=question,
        shared=shared,
    )


def answer(user: str, missed: Miss) -> Answer:
    return Answer(
        text=f"As {user} was told.",
        finish_reason=FinishReason.STOP,
        prompt_tokens=7,
        completion_tokens=4,
        source_message="chat-1-1",
        source_chat="chat-1",
        source_user=user,
        temperature=0.0,
        seeded=False,
        stamp=missed.stamp,
        lease=missed.lease,
    )


@contextlib.asynccontextmanager
async def session_cache(
    serve: Serve, url: str, **settings: object
) -> AsyncIterator[GrpcAnswerCache]:
    async with serve(url, **settings) as (_, running):
        cache = GrpcAnswerCache(
            parse_targets(f"127.0.0.1:{running.port}"),
            lookup_timeout=5.0,
            write_timeout=5.0,
            wait=0.2,
        )
        await cache.start()
        try:
            yield cache
        finally:
            await cache.stop()


async def missed(cache: GrpcAnswerCache, query: Query) -> Miss:
    async def reached() -> Miss | None:
        found = await cache.lookup(query)
        assert isinstance(found, Miss)
        return found if found.stamp or found.reason != "unavailable" else None

    found = await until(reached, what="the cache to be reached")
    assert found is not None
    return found


async def test_a_shared_answer_is_given_once_enough_users_asked(
    redis_url: str, serve: Serve
) -> None:
    async with session_cache(serve, redis_url, global_scope=True) as cache:
        first = await missed(cache, asked("ann", shared=True))
        assert await cache.store(asked("ann", shared=True), answer("ann", first)) == ""
        second = await cache.lookup(asked("bob", shared=True))
        assert isinstance(second, Miss)
        assert second.reason == "too_few_askers"
        third = await cache.lookup(asked("eve", shared=True))
        assert isinstance(third, Hit)
        assert (third.status, third.answer) == (CacheStatus.EXACT, "As ann was told.")
        # A user's own scope is another one.
        own = await cache.lookup(asked("ann", shared=False))
        assert isinstance(own, Miss)


async def test_where_the_cache_does_not_share_it_says_so(redis_url: str, serve: Serve) -> None:
    async with session_cache(serve, redis_url) as cache:
        found = await missed(cache, asked("ann", shared=True))
        assert found.reason == "global_scope_off"


async def test_a_lease_is_renewed_over_the_wire(redis_url: str, serve: Serve) -> None:
    async with session_cache(serve, redis_url, lease_seconds=30.0) as cache:
        query = asked("ann", shared=False)
        first = await missed(cache, query)
        assert first.lease
        assert first.lease_seconds == 30.0
        assert await cache.renew(query, first.lease, 1.0) == 30.0
        assert await cache.renew(query, "another", 1.0) == 0.0
        await cache.release(query, first.lease)
        assert await cache.renew(query, first.lease, 1.0) == 0.0
        assert await cache.renew(replace(query, tenant=""), first.lease, 7.0) == 7.0


async def test_only_who_waits_for_anothers_answer_is_told_that_it_waits(
    redis_url: str, serve: Serve
) -> None:
    async with session_cache(serve, redis_url, lease_seconds=30.0) as cache:
        query, told = asked("ann", shared=False), list[str]()
        leader = await missed(cache, query)
        assert leader.lease
        waited = await cache.lookup(query, lambda: told.append("waits"))
        assert isinstance(waited, Miss)
        assert told == ["waits"]
        assert await cache.store(query, answer("ann", leader)) == ""
        assert isinstance(await cache.lookup(query, lambda: told.append("hit")), Hit)
        other = replace(query, question="Another one?")
        assert isinstance(await cache.lookup(other, lambda: told.append("miss")), Miss)
        assert told == ["waits"]
