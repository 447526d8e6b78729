"""A Redis that dies, comes back empty, hangs, is full or holds garbage: misses, never worse."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
import redis.asyncio as redis_asyncio
from parley.cache.v1 import cache_pb2 as pb

from parley_cache.barriers import Stamp
from parley_cache.keys import entry_key
from parley_cache.model import Selector, Totals
from parley_cache.store.base import ENTRY_OVERHEAD_BYTES, Limits, StoreFull
from parley_cache.store.redis import RedisStore
from parley_cache.store.redis_client import open_client
from parley_kit.errors import ServiceError
from parley_kit.rpc.client import call_unary
from support.cache_store import LIVES, TENANT, Clock, answer_of, put, query
from support.cache_wire import Serve, wire_query, wire_store
from support.poll import until
from support.servers import ValkeyServer

pytestmark = pytest.mark.integration
ROOMY = Limits(10**9, 10**6, 10**9, 10**6)
LOOKUP = pb.LookupRequest(query=wire_query())
ALL = pb.InvalidateRequest(tenant="acme", all=True)


async def test_a_killed_redis_makes_misses_and_unconfirmed_invalidations(
    valkey_server: ValkeyServer, serve: Serve
) -> None:
    async with serve(valkey_server.url) as (stub, running):
        assert (await call_unary(stub.Store, wire_store(), timeout=5)).stored
        valkey_server.kill()
        for _ in range(8):
            miss = await call_unary(stub.Lookup, LOOKUP, timeout=5)
            assert (miss.verdict, miss.reason) == (pb.VERDICT_MISS, "store_unavailable")
        stored = await call_unary(stub.Store, wire_store(), timeout=5)
        assert (stored.stored, stored.reason) == (False, "store_unavailable")
        for request, method in (
            (ALL, stub.Invalidate),
            (pb.InvalidateRequest(tenant="acme", chat_id="chat-1"), stub.Invalidate),
            (pb.GetStatsRequest(tenant="acme"), stub.GetStats),
        ):
            with pytest.raises(ServiceError) as caught:
                await call_unary(method, request, timeout=5)
            assert caught.value.status is grpc.StatusCode.UNAVAILABLE
            assert caught.value.code == "store_unavailable"
        assert running.server.serving

        # Back, and empty: a miss, then it works as before.
        valkey_server.start()

        async def answers() -> bool:
            found = await call_unary(stub.Lookup, LOOKUP, timeout=5)
            return bool(found.reason == "not_found")

        await until(answers, what="look-ups to reach the store again")
        assert (await call_unary(stub.Store, wire_store(), timeout=5)).stored
        hit = await call_unary(stub.Lookup, LOOKUP, timeout=5)
        assert hit.verdict == pb.VERDICT_EXACT
        assert (await call_unary(stub.Invalidate, ALL, timeout=5)).entries == 1


async def test_a_redis_that_was_restarted_in_between_costs_no_miss_of_its_own(
    valkey_server: ValkeyServer,
) -> None:
    store = RedisStore(
        open_client(valkey_server.url, max_connections=4, connect_seconds=2), ROOMY, LIVES
    )
    await asyncio.gather(*(store.ping() for _ in range(4)))
    valkey_server.restart()
    # Every pooled connection is dead; each is opened anew within its own call.
    for _ in range(8):
        assert (await store.get(entry_key(query()))).reason == "not_found"
    await store.close()


async def test_a_service_started_before_its_redis_serves_misses_and_becomes_ready(
    valkey_server: ValkeyServer, serve: Serve
) -> None:
    valkey_server.kill()
    async with serve(valkey_server.url, reached=False) as (stub, running):
        miss = await call_unary(stub.Lookup, LOOKUP, timeout=5)
        assert miss.reason == "store_unavailable"
        assert not running.server.serving
        valkey_server.start()
        await until(lambda: running.server.serving, what="readiness")


async def test_a_hanging_redis_is_a_miss_within_the_callers_deadline(
    valkey_server: ValkeyServer, serve: Serve
) -> None:
    async with serve(valkey_server.url, breaker_failures=1000) as (stub, _):
        assert (await call_unary(stub.Store, wire_store(), timeout=5)).stored
        valkey_server.pause()
        try:
            # The caller's own deadline would raise: each answer came before it.
            for _ in range(5):
                miss = await call_unary(stub.Lookup, LOOKUP, timeout=0.15)
                assert miss.reason == "store_unavailable"
            with pytest.raises(ServiceError) as caught:
                await call_unary(stub.Invalidate, ALL, timeout=0.3)
            assert caught.value.code == "store_unavailable"
        finally:
            valkey_server.resume()

        async def hits() -> bool:
            found = await call_unary(stub.Lookup, LOOKUP, timeout=5)
            return found.verdict in {pb.VERDICT_EXACT, pb.VERDICT_MISS} and (
                found.reason != "store_unavailable"
            )

        await until(hits)


async def test_lookups_cut_off_in_mid_reply_never_get_each_others_answers(
    valkey_server: ValkeyServer,
) -> None:
    client = open_client(valkey_server.url, max_connections=4, connect_seconds=2)
    clock = Clock()
    store = RedisStore(client, ROOMY, LIVES, clock=clock)
    asked = [query(f"q{number}") for number in range(20)]
    for number, one in enumerate(asked):
        await put(store, clock, one, f"answer {number}" + "x" * 20_000)
    for round_ in range(10):
        valkey_server.pause()
        tasks = [asyncio.create_task(store.get(entry_key(one))) for one in asked]
        for _ in range(round_ + 1):
            await asyncio.sleep(0)
        for task in tasks[:: 1 + round_ % 3]:
            task.cancel()
        valkey_server.resume()
        await asyncio.gather(*tasks, return_exceptions=True)
        for number, one in enumerate(asked):
            found = await store.get(entry_key(one))
            assert found.entry is not None
            assert found.entry.answer.startswith(f"answer {number}x")
    await store.close()


async def test_a_cancellation_is_never_lost(valkey_server: ValkeyServer) -> None:
    client = open_client(valkey_server.url, max_connections=8, connect_seconds=2)
    store = RedisStore(client, ROOMY, LIVES, sweep_seconds=0.001)
    for steps in range(150):
        for work in (store.sweep(), store.get(entry_key(query())), store.totals(TENANT)):
            task = asyncio.create_task(work)
            for _ in range(steps % 50):
                await asyncio.sleep(0)
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=5)
                assert task.cancelled()
    await store.close()


@pytest.fixture
async def raw(valkey_server: ValkeyServer) -> redis_asyncio.Redis:
    return redis_asyncio.Redis.from_url(valkey_server.url)


async def test_a_full_redis_is_made_room_in_and_invalidation_still_works(
    valkey_server: ValkeyServer, raw: redis_asyncio.Redis
) -> None:
    clock = Clock()
    client = open_client(valkey_server.url, max_connections=8, connect_seconds=2)
    store = RedisStore(client, ROOMY, LIVES, sweep_seconds=0.001, clock=clock)
    used = int((await raw.info("memory"))["used_memory"])
    await raw.config_set("maxmemory-policy", "noeviction")
    await raw.config_set("maxmemory", used + 2_000_000)
    stored = 0
    for number in range(400):
        result = await put(
            store, clock, query(f"q{number}"), "y" * 20_000, chat=f"c{number}", ttl=100 + number
        )
        stored += result.stored
    assert stored == 400, "the cache went on renewing itself"
    assert await answer_of(store, query("q399")) is not None
    held = await store.totals(TENANT)
    assert held.entries < 400

    # Filled up by somebody else to the last byte.
    await raw.config_set("maxmemory", 1)
    assert await answer_of(store, query("q399")) is not None
    with pytest.raises(StoreFull):
        await put(store, clock, query("no room"), "z" * 20_000)
    # Nothing can be remembered, so nothing is claimed.
    with pytest.raises(StoreFull):
        await store.invalidate(TENANT, Selector(chat_id="c399"), dry_run=False)
    await raw.config_set("maxmemory", 0)
    await store.invalidate(TENANT, Selector(chat_id="c399"), dry_run=False)
    assert await answer_of(store, query("q399")) is None
    await store.invalidate(TENANT, Selector(user="ann"), dry_run=False)
    await store.sweep()
    assert await store.totals(TENANT) == Totals(0, 0)
    await store.close()
    await raw.aclose()


async def test_a_full_redis_is_a_refusal_with_a_reason(
    valkey_server: ValkeyServer, raw: redis_asyncio.Redis, serve: Serve
) -> None:
    async with serve(valkey_server.url) as (stub, _):
        await raw.config_set("maxmemory-policy", "noeviction")
        await raw.config_set("maxmemory", 1)
        stored = await call_unary(stub.Store, wire_store(), timeout=5)
        assert (stored.stored, stored.reason) == (False, "store_full")
        miss = await call_unary(stub.Lookup, LOOKUP, timeout=5)
        assert miss.reason == "not_found"
        with pytest.raises(ServiceError) as caught:
            await call_unary(stub.Invalidate, ALL, timeout=5)
        assert caught.value.code == "store_unavailable"
        await raw.config_set("maxmemory", 0)
        assert (await call_unary(stub.Store, wire_store(), timeout=5)).stored
    await raw.aclose()


@pytest.mark.parametrize("damage", ["bytes", "empty", "wrong type", "another's record"])
async def test_a_damaged_record_is_a_miss_and_is_replaced(
    valkey_server: ValkeyServer, raw: redis_asyncio.Redis, damage: str
) -> None:
    clock = Clock()
    client = open_client(valkey_server.url, max_connections=4, connect_seconds=2)
    store = RedisStore(client, ROOMY, LIVES, clock=clock)
    await put(store, clock, query())
    await put(store, clock, query("another"), "another's answer")
    key = entry_key(query())
    [name] = [n async for n in raw.scan_iter(f"*:e:{key.entry_id}")]
    [other] = [n async for n in raw.scan_iter("*:e:*") if n != name]
    match damage:
        case "bytes":
            await raw.setrange(name, 40, b"garbage")
        case "empty":
            await raw.set(name, b"")
        case "wrong type":
            await raw.delete(name)
            await raw.rpush(name, "a list")
        case _:
            await raw.set(name, await raw.get(other))  # type: ignore[arg-type]
    found = await store.get(key)
    assert found.entry is None
    assert found.reason == ("collision" if damage == "another's record" else "corrupt")
    if damage != "another's record":
        assert not await raw.exists(name)
        assert (await store.totals(TENANT)).entries == 1
    assert (await put(store, clock, query(), "anew")).stored
    assert await answer_of(store, query()) == "anew"
    await store.invalidate(TENANT, Selector(user="ann"), dry_run=False)
    assert await store.totals(TENANT) == Totals(0, 0)
    await store.close()
    await raw.aclose()


async def test_a_lost_epoch_takes_all_entries_with_it(
    valkey_server: ValkeyServer, raw: redis_asyncio.Redis
) -> None:
    clock = Clock()
    client = open_client(valkey_server.url, max_connections=4, connect_seconds=2)
    store = RedisStore(client, ROOMY, LIVES, clock=clock)
    await put(store, clock, query("kept"))
    await put(store, clock, query("taken out"), chat="c1")
    stamp = (await store.get(entry_key(query()))).stamp
    await store.invalidate(TENANT, Selector(chat_id="c1"), dry_run=False)
    [meta] = [name async for name in raw.scan_iter("*:meta")]
    await raw.delete(meta)
    # The barriers are gone, and so is everything that they kept from coming back.
    assert await answer_of(store, query("kept")) is None
    assert not (await put(store, clock, query("taken out"), chat="c1", stamp=stamp)).stored
    assert (await put(store, clock, query("kept"), stamp=Stamp(None, 0))).stored
    await store.close()
    await raw.aclose()


async def test_lost_bookkeeping_is_counted_anew(
    valkey_server: ValkeyServer, raw: redis_asyncio.Redis
) -> None:
    clock = Clock()
    client = open_client(valkey_server.url, max_connections=4, connect_seconds=2)
    store = RedisStore(client, ROOMY, LIVES, sweep_seconds=0.001, clock=clock)
    for number in range(10):
        await put(store, clock, query(f"q{number}"), ttl=10 if number < 5 else 1000)
    names = [name async for name in raw.scan_iter("*:x:*")]
    await raw.delete(*names[:4])
    clock.advance(20)
    await store.sweep()
    totals = await store.totals(TENANT)
    assert totals.entries == 5
    clock.advance(2000)
    await store.sweep()
    assert await store.totals(TENANT) == Totals(0, 0)
    await store.close()
    await raw.aclose()


async def test_too_many_barriers_are_widened_to_the_whole_tenant(
    valkey_server: ValkeyServer, raw: redis_asyncio.Redis
) -> None:
    clock = Clock()
    client = open_client(valkey_server.url, max_connections=4, connect_seconds=2)
    store = RedisStore(client, ROOMY, LIVES, max_barriers=20, sweep_seconds=0.001, clock=clock)
    await put(store, clock, query(), chat="c-stays")
    before = (await store.get(entry_key(query()))).stamp
    for number in range(60):
        await store.invalidate(TENANT, Selector(chat_id=f"c{number}"), dry_run=False)
    [meta] = [name async for name in raw.scan_iter("*:meta")]
    assert await raw.hlen(meta) <= 40
    for number in (0, 30, 59):
        for stamp in (before, None):
            result = await put(store, clock, query("x"), chat=f"c{number}", stamp=stamp)
            assert not result.stored
    await store.sweep()
    assert (await store.sweep()).totals == Totals(0, 0)
    await store.close()
    await raw.aclose()


async def test_the_overhead_reckoned_for_an_entry_is_about_what_it_takes(
    valkey_server: ValkeyServer, raw: redis_asyncio.Redis
) -> None:
    clock = Clock()
    client = open_client(valkey_server.url, max_connections=4, connect_seconds=2)
    store = RedisStore(client, ROOMY, LIVES, clock=clock)
    await put(store, clock, query("first"))

    async def used() -> int:
        return int((await raw.info("memory"))["used_memory_dataset"])

    before = await used()
    reckoned = -(await store.totals(TENANT)).bytes
    count = 2000
    for number in range(count):
        await put(store, clock, query(f"q{number}"), "y" * 500, chat=f"c{number}")
    reckoned += (await store.totals(TENANT)).bytes
    took = await used() - before
    assert 0.6 * took < reckoned < 2.0 * took, (took / count, ENTRY_OVERHEAD_BYTES)
    await store.close()
    await raw.aclose()


async def test_keys_expire_by_themselves_and_none_is_left_without_an_end(
    valkey_server: ValkeyServer, raw: redis_asyncio.Redis
) -> None:
    clock = Clock()
    client = open_client(valkey_server.url, max_connections=4, connect_seconds=2)
    store = RedisStore(client, ROOMY, LIVES, sweep_seconds=0.001, clock=clock)
    for number in range(5):
        await put(store, clock, query(f"q{number}"))
    await store.invalidate(TENANT, Selector(chat_id="c"), dry_run=False)
    await store.sweep()
    lasting = {b"parley:cache:tenants", b"parley:cache:total"}
    for name in [name async for name in raw.scan_iter("*")]:
        if name not in lasting:
            assert await raw.ttl(name) >= 0, name
    assert time.time() > 0
    await store.close()
    await raw.aclose()
