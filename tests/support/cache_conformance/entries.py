"""Entries by key: written, read, expired."""

from __future__ import annotations

from parley_cache.keys import entry_key
from parley_cache.model import Selector, Totals
from parley_cache.store.base import ENTRY_OVERHEAD_BYTES
from support.cache_store import NOBODY, TENANT, Clock, MakeStore, answer_of, entry_for, put, query


class Entries:
    """Give the fixtures `make_store` and `clock`."""

    async def test_what_was_put_is_got_whole(self, make_store: MakeStore, clock: Clock) -> None:
        store = make_store()
        key, entry, sources = entry_for(clock, query(), "Reiher 🐦‍⬛ é")
        assert (await store.put(key, entry, sources, NOBODY)).stored
        found = await store.get(key)
        assert found.entry == entry
        assert found.reason == ""

    async def test_nothing_is_found_where_nothing_was_put(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        store = make_store()
        found = await store.get(entry_key(query()))
        assert (found.entry, found.reason) == (None, "not_found")
        assert await store.totals(TENANT) == Totals(0, 0)

    async def test_another_replica_finds_it(self, make_store: MakeStore, clock: Clock) -> None:
        one, two = make_store(), make_store()
        assert await answer_of(two, query()) is None
        await put(one, clock, query())
        assert await answer_of(two, query()) == "A wading bird."

    async def test_putting_again_replaces_and_counts_once(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        store = make_store()
        await put(store, clock, query(), "first answer", chat="c1")
        before = await store.totals(TENANT)
        await put(store, clock, query(), "secondanswer", chat="c2")
        assert await answer_of(store, query()) == "secondanswer"
        assert (await store.totals(TENANT)).entries == before.entries == 1
        assert abs((await store.totals(TENANT)).bytes - before.bytes) < 16
        # It no longer stems from the first chat.
        assert await store.invalidate(TENANT, Selector(chat_id="c1"), dry_run=False) == 0
        assert await answer_of(store, query()) == "secondanswer"

    async def test_expiry_is_absolute_and_hits_do_not_renew_it(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        store = make_store()
        await put(store, clock, query(), ttl=100)
        for _ in range(9):
            clock.advance(11)
            assert await answer_of(store, query()) is not None
        clock.advance(1)
        found = await store.get(entry_key(query()))
        assert found.entry is None
        assert found.reason in {"expired", "not_found"}

    async def test_sweeping_forgets_what_expired(self, make_store: MakeStore, clock: Clock) -> None:
        store = make_store()
        for number in range(300):
            await put(store, clock, query(f"question {number}"), ttl=10)
        await put(store, clock, query("stays"), ttl=50)
        clock.advance(20)
        swept = await store.sweep()
        assert swept.expired == 300
        assert swept.totals.entries == 1
        assert swept.tenants == 1
        left = await store.totals(TENANT)
        assert left.entries == 1
        assert left.bytes == swept.totals.bytes
        assert left.bytes < 2 * ENTRY_OVERHEAD_BYTES
        clock.advance(100)
        assert (await store.sweep()).totals == Totals(0, 0)
        assert await store.totals(TENANT) == Totals(0, 0)
