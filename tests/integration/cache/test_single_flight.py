"""Single flight across two cache services on one Redis: the same, the equivalent, and faults."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from parley.cache.v1 import cache_pb2 as pb

from parley_cache.bootstrap import Running
from parley_cache.flight import SingleFlight
from parley_kit.errors import ServiceError
from parley_kit.rpc.client import call_unary
from support.cache_wire import Serve, wire_query, wire_store
from support.meaning import WordModel
from support.poll import until
from support.servers import ValkeyServer

pytestmark = pytest.mark.integration

ASKED = "How can I reset my password?"
ALIKE = "What is the way to reset a password?"
TRAP = "How can I not reset my password?"


async def look(stub: Any, question: str, wait: float = 0.0, **partition: object) -> Any:
    request = pb.LookupRequest(
        query=wire_query(question, **partition),
        allow_semantic=True,
        want_lease=True,
        max_wait_seconds=wait,
    )
    return await call_unary(stub.Lookup, request, timeout=30)


def flight_of(running: Running) -> SingleFlight:
    """Who waits at a service, and for whom."""
    cache = running.upkeep._cache
    assert cache is not None
    assert cache._flight is not None
    return cache._flight


async def test_one_answer_is_made_for_all_who_ask_the_same_or_what_means_the_same(
    redis_url: str, serve: Serve
) -> None:
    shared = {"key_prefix": "test:flight", "model": WordModel()}
    async with (
        serve(redis_url, **shared) as (one, at_one),
        serve(redis_url, **shared) as (two, at_two),
    ):
        await call_unary(one.Invalidate, pb.InvalidateRequest(tenant="acme", all=True), timeout=10)
        first = await look(one, ASKED)
        assert first.lease
        assert first.lease_seconds > 0
        # Of each wording one is told at once; nothing is held by those who are told.
        for question in (ASKED, ALIKE):
            told = await look(two, question)
            assert (told.lease, told.reason) == ("", "in_flight")
        assert (await look(two, TRAP)).lease
        assert (await look(two, ALIKE, user="bob")).lease
        waiting = [
            asyncio.create_task(look(stub, question, wait=20.0))
            for stub in (one, two)
            for question in (ASKED, ALIKE, ALIKE + "?")
        ]
        flights = [flight_of(running) for running in (at_one, at_two)]
        await until(lambda: all(f._waiting >= 3 for f in flights), what="all six to wait")
        renewal = pb.RenewLeaseRequest(query=wire_query(ASKED), lease=first.lease)
        renewed = await call_unary(two.RenewLease, renewal, timeout=10)
        assert renewed.lease_seconds == first.lease_seconds
        stored = await call_unary(
            two.Store,
            wire_store(ASKED, "Like this.", lease=first.lease, stamp=first.stamp),
            timeout=10,
        )
        assert stored.stored, stored.reason
        found = await asyncio.gather(*waiting)
        # One that had not begun to wait may look for itself; it is not made to wait then.
        answers = [one.entry.answer for one in found if one.HasField("entry")]
        assert set(answers) == {"Like this."}
        assert len(answers) + sum(bool(one.lease) for one in found) == len(found)
        ended = await call_unary(two.RenewLease, renewal, timeout=10)
        assert ended.lease_seconds == 0.0


async def test_a_lease_that_is_not_renewed_passes_to_one_who_waits(
    redis_url: str, serve: Serve
) -> None:
    shared = {"key_prefix": "test:lapse", "model": WordModel(), "lease_seconds": 0.5}
    async with serve(redis_url, **shared) as (one, _), serve(redis_url, **shared) as (two, _):
        assert (await look(one, ASKED)).lease
        found = await asyncio.gather(*(look(two, ALIKE, wait=1.5) for _ in range(3)))
        assert sum(bool(each.lease) for each in found) >= 1
        assert not any(each.HasField("entry") for each in found)


async def test_with_redis_gone_everybody_goes_on(valkey_server: ValkeyServer, serve: Serve) -> None:
    async with serve(valkey_server.url, model=WordModel(), redis_connect_seconds=0.2) as (
        stub,
        running,
    ):
        first = await look(stub, ASKED)
        assert first.lease
        waiting = asyncio.create_task(look(stub, ALIKE, wait=20.0))
        renewal = pb.RenewLeaseRequest(query=wire_query(ASKED), lease=first.lease)
        await call_unary(stub.RenewLease, renewal, timeout=10)
        flight = flight_of(running)
        await until(lambda: flight._waiting == 1, what="the other to wait")
        valkey_server.kill()
        missed = await waiting
        assert (missed.verdict, missed.lease) == (pb.VERDICT_MISS, "")
        # Neither held nor lost: it is asked again.
        again = await call_unary(stub.RenewLease, renewal, timeout=10)
        assert again.lease_seconds > 0
        release = pb.ReleaseLeaseRequest(query=wire_query(ASKED), lease=first.lease)
        await call_unary(stub.ReleaseLease, release, timeout=10)
        valkey_server.start()

        async def leads() -> bool:
            return bool((await look(stub, ALIKE)).lease)

        await until(leads, what="leases to be given again")


async def test_a_wrong_renewal_names_its_field(redis_url: str, serve: Serve) -> None:
    async with serve(redis_url) as (stub, _):
        with pytest.raises(ServiceError) as caught:
            await call_unary(
                stub.RenewLease, pb.RenewLeaseRequest(query=wire_query(tenant="")), timeout=10
            )
        assert caught.value.code == "invalid_request"


async def test_two_replicas_with_two_models_share_the_exact_tier_and_nothing_by_meaning(
    redis_url: str, serve: Serve
) -> None:
    prefix = {"key_prefix": "test:models"}
    async with (
        serve(redis_url, model=WordModel("words:1"), **prefix) as (one, _),
        serve(redis_url, model=WordModel("words:2"), **prefix) as (two, _),
    ):
        await call_unary(one.Invalidate, pb.InvalidateRequest(tenant="acme", all=True), timeout=10)
        first = await look(one, ASKED)
        assert (await look(two, ALIKE)).lease, "not comparable, so not waited for"
        kept = wire_store(ASKED, "Like this.", lease=first.lease, stamp=first.stamp)
        assert (await call_unary(one.Store, kept, timeout=10)).stored

        async def by_meaning() -> bool:
            return bool((await look(one, ALIKE + "?")).verdict == pb.VERDICT_SEMANTIC)

        await until(by_meaning)
        assert (await look(two, ASKED)).verdict == pb.VERDICT_EXACT
        assert (await look(two, ALIKE + "?")).verdict == pb.VERDICT_MISS
