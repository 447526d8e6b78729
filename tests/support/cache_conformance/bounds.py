"""Memory is bounded, and reckoned rightly."""

from __future__ import annotations

import asyncio

import pytest

from parley_cache.keys import entry_key, tenant_name
from parley_cache.model import Credit, Selector, Totals
from parley_cache.store.base import Limits, StoreFull
from parley_cache.store.worth import HALF_LIFE_SECONDS
from support.cache_store import TENANT, Clock, MakeStore, answer_of, put, query


class Bounds:
    """Give the fixtures `make_store` and `clock`."""

    async def test_bytes_stay_exact_under_concurrent_change(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        stores = [make_store() for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for number in range(60):
                asked = query(f"q{number % 10}")
                group.create_task(
                    put(stores[number % 3], clock, asked, "x" * (number * 10), chat=f"c{number}")
                )
                if number % 7 == 0:
                    group.create_task(
                        stores[1].invalidate(
                            TENANT, Selector(chat_id=f"c{number - 1}"), dry_run=False
                        )
                    )
        held = await stores[0].totals(TENANT)
        assert held.entries <= 10
        await stores[0].invalidate(TENANT, Selector(user="ann"), dry_run=False)
        assert await stores[2].totals(TENANT) == Totals(0, 0)

    async def test_a_tenant_keeps_within_its_share_and_what_is_worth_least_goes(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        store = make_store(Limits(10**9, 10**6, tenant_bytes=10**9, tenant_entries=5))
        for number in range(5):
            # The middle one saves the most tokens; the first is asked for again and again.
            await put(store, clock, query(f"q{number}"), tokens=4000 if number == 2 else 10)
            clock.advance(1)
        first = entry_key(query("q0")).entry_id
        await store.credit([Credit(TENANT, first, 10, 20), Credit(TENANT, "gone", 10, 1)])
        evicted = 0
        for number in range(5, 8):
            evicted += (await put(store, clock, query(f"q{number}"), tokens=10)).evicted
            clock.advance(1)
        assert evicted == 3
        assert (await store.totals(TENANT)).entries == 5
        kept = [n for n in range(8) if await answer_of(store, query(f"q{n}"))]
        assert kept == [0, 2, 5, 6, 7], "hits, tokens saved and age decide"
        await put(store, clock, query("q", tenant="globex"))
        assert (await store.totals(TENANT)).entries == 5

    async def test_hits_of_long_ago_weigh_less_than_those_of_today(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        store = make_store(Limits(10**9, 10**6, tenant_bytes=10**9, tenant_entries=2))
        await put(store, clock, query("old"), ttl=10**6)
        await store.credit([Credit(TENANT, entry_key(query("old")).entry_id, 4, 30)])
        clock.advance(10 * HALF_LIFE_SECONDS)
        await put(store, clock, query("new"), ttl=10**6)
        await store.credit([Credit(TENANT, entry_key(query("new")).entry_id, 4, 2)])
        await put(store, clock, query("newest"), ttl=10**6)
        assert await answer_of(store, query("old")) is None
        assert await answer_of(store, query("new")) is not None

    async def test_bytes_are_bounded(self, make_store: MakeStore, clock: Clock) -> None:
        share = 40_000
        store = make_store(Limits(10**9, 10**6, tenant_bytes=share, tenant_entries=10**6))
        for number in range(20):
            await put(store, clock, query(f"q{number}"), "y" * 5000, ttl=100 + number)
            assert (await store.totals(TENANT)).bytes <= share
        assert (await store.totals(TENANT)).entries >= 4
        with pytest.raises(StoreFull):
            await put(store, clock, query("huge"), "z" * share)
        assert await answer_of(store, query("q19")) is not None

    async def test_all_tenants_together_are_bounded_by_the_sweep(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        roomy = make_store()
        for number in range(30):
            await put(roomy, clock, query(f"q{number}", tenant=f"t{number % 3}"), ttl=50 + number)
        tight = make_store(Limits(10**9, max_entries=12, tenant_bytes=10**9, tenant_entries=10**6))
        swept = await tight.sweep()
        assert swept.totals.entries <= 12
        assert swept.evicted >= 18
        held = [await tight.totals(tenant_name(f"t{n}")) for n in range(3)]
        assert sum(totals.entries for totals in held) == swept.totals.entries
        # Once the whole is full, a store displaces rather than adds.
        await put(tight, clock, query("one more", tenant="t0"), ttl=500)
        held = [await tight.totals(tenant_name(f"t{n}")) for n in range(3)]
        assert sum(totals.entries for totals in held) <= 12
