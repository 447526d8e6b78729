"""What is invalidated is gone, and does not come back."""

from __future__ import annotations

import asyncio

import pytest

from parley_cache.keys import entry_key, tenant_name
from parley_cache.model import Selector, Totals
from parley_cache.store.base import Put
from support.cache_store import LIVES, NOBODY, TENANT, Clock, MakeStore, answer_of, put, query


class Invalidation:
    """Give the fixtures `make_store` and `clock`."""

    @pytest.mark.parametrize(
        ("selector", "left"),
        [
            (Selector(chat_id="c1"), {"q3", "q4"}),
            (Selector(chat_id="c1", user="ann"), {"q2", "q3", "q4"}),
            (Selector(message_id="m3"), {"q1", "q2", "q4"}),
            (Selector(user="ann"), {"q2", "q4"}),
            (Selector(model="big"), {"q1", "q2", "q3"}),
            (Selector(user="bob", model="big"), {"q1", "q2", "q3"}),
            (Selector(user="ann", model="big"), {"q1", "q2", "q3", "q4"}),
            (Selector(chat_id="nowhere"), {"q1", "q2", "q3", "q4"}),
            (Selector(all=True), set()),
        ],
    )
    async def test_invalidation_removes_what_matches_every_field_and_nothing_else(
        self, make_store: MakeStore, clock: Clock, selector: Selector, left: set[str]
    ) -> None:
        store, other_replica = make_store(), make_store()
        asked = {
            "q1": query("q1", user="ann"),
            "q2": query("q2", user="bob"),
            "q3": query("q3", user="ann"),
            "q4": query("q4", user="bob", model="big"),
        }
        await put(store, clock, asked["q1"], chat="c1", message="m1")
        await put(store, clock, asked["q2"], chat="c1", message="m2")
        await put(store, clock, asked["q3"], chat="c2", message="m3")
        await put(store, clock, asked["q4"], chat="c2", message="m4")
        foreign = query("q1", tenant="globex")
        await put(store, clock, foreign, chat="c1", message="m1")
        for one in asked.values():
            assert await answer_of(other_replica, one) is not None

        counted = await store.invalidate(TENANT, selector, dry_run=True)
        assert counted == 4 - len(left)
        for one in asked.values():
            assert await answer_of(store, one) is not None
        assert await store.invalidate(TENANT, selector, dry_run=False) == counted
        for replica in (store, other_replica):
            found = {name for name, one in asked.items() if await answer_of(replica, one)}
            assert found == left
            assert await answer_of(replica, foreign) is not None
        assert (await store.totals(TENANT)).entries == len(left)
        assert await store.invalidate(TENANT, selector, dry_run=False) == 0

    async def test_a_large_invalidation_is_complete(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        store = make_store()
        for number in range(700):
            await put(store, clock, query(f"q{number}"), chat=f"c{number % 2}")
        assert await store.invalidate(TENANT, Selector(chat_id="c0"), dry_run=False) == 350
        assert (await store.totals(TENANT)).entries == 350
        assert await store.invalidate(TENANT, Selector(all=True), dry_run=False) == 350
        assert await store.totals(TENANT) == Totals(0, 0)
        await store.sweep()
        assert (await store.sweep()).totals == Totals(0, 0)

    @pytest.mark.parametrize(
        "selector",
        [Selector(chat_id="c1"), Selector(message_id="m1"), Selector(user="ann", chat_id="c1")],
    )
    async def test_a_store_arriving_after_its_source_was_invalidated_is_refused(
        self, make_store: MakeStore, clock: Clock, selector: Selector
    ) -> None:
        store = make_store()
        await store.invalidate(TENANT, selector, dry_run=False)
        fresh = (await store.get(entry_key(query()))).stamp
        for stamp in (NOBODY, None, fresh):
            result = await put(store, clock, query(), chat="c1", message="m1", stamp=stamp)
            assert result == Put(False, "invalidated")
        assert await answer_of(store, query()) is None
        assert (await put(store, clock, query(), chat="c2", message="m2")).stored
        clock.advance(LIVES.tombstone_seconds + 1)
        assert (await put(store, clock, query("x"), chat="c1", message="m1")).stored

    @pytest.mark.parametrize(
        "selector", [Selector(user="ann"), Selector(model="smol"), Selector(all=True)]
    )
    @pytest.mark.parametrize("used_before", [True, False])
    async def test_what_was_begun_before_an_invalidation_does_not_come_back(
        self, make_store: MakeStore, clock: Clock, selector: Selector, used_before: bool
    ) -> None:
        store = make_store()
        if used_before:
            await put(store, clock, query("an earlier one"), chat="c0")
        before = (await store.get(entry_key(query()))).stamp
        await store.invalidate(TENANT, selector, dry_run=False)
        after = (await store.get(entry_key(query()))).stamp

        # Begun before, or unable to show when it was begun: refused.
        assert (await put(store, clock, query(), stamp=before)).reason == "invalidated"
        assert (await put(store, clock, query(), stamp=None)).reason == "invalidated"
        assert await answer_of(store, query()) is None
        # Begun since: kept.
        assert (await put(store, clock, query(), stamp=after)).stored
        assert await answer_of(store, query()) == "A wading bird."
        clock.advance(LIVES.barrier_seconds + 1)
        assert (await put(store, clock, query(), stamp=None)).stored

    async def test_an_invalidation_of_others_does_not_hold_a_store_up(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        store = make_store()
        await put(store, clock, query("an earlier one"), chat="c0")
        before = (await store.get(entry_key(query()))).stamp
        for selector in (Selector(user="bob"), Selector(model="big"), Selector(chat_id="c9")):
            await store.invalidate(TENANT, selector, dry_run=False)
        await store.invalidate(tenant_name("globex"), Selector(all=True), dry_run=False)
        assert (await put(store, clock, query(), stamp=before)).stored

    async def test_a_dry_run_leaves_no_barrier(self, make_store: MakeStore, clock: Clock) -> None:
        store = make_store()
        await put(store, clock, query("earlier"))
        before = (await store.get(entry_key(query()))).stamp
        for selector in (Selector(all=True), Selector(chat_id="chat-1"), Selector(user="ann")):
            assert await store.invalidate(TENANT, selector, dry_run=True) == 1
        assert (await put(store, clock, query(), stamp=before)).stored

    async def test_stores_racing_an_invalidation_leave_nothing_behind(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        stores = [make_store() for _ in range(3)]
        for round_ in range(12):
            chat = f"racing-{round_}"
            asked = [query(f"{round_}/{number}") for number in range(8)]
            selector = Selector(chat_id=chat) if round_ % 2 else Selector(all=True)
            stamp = (await stores[0].get(entry_key(asked[0]))).stamp
            async with asyncio.TaskGroup() as group:
                for number, one in enumerate(asked):
                    group.create_task(put(stores[number % 3], clock, one, chat=chat, stamp=stamp))
                    if number == 3:
                        group.create_task(stores[0].invalidate(TENANT, selector, dry_run=False))
            for one in asked:
                assert await answer_of(stores[1], one) is None
        await stores[0].sweep()
        assert (await stores[0].totals(TENANT)) == Totals(0, 0)
