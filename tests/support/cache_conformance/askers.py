"""Leases of those who ask at once, and who may share."""

from __future__ import annotations

import asyncio
import dataclasses

from parley_cache.keys import EntryKey, entry_key, tenant_name
from parley_cache.model import Selector
from parley_cache.store.base import MAX_ANNOUNCED, CacheStore, Lease
from support.cache_store import NOBODY, TENANT, Clock, MakeStore, entry_for, put, query


async def take(store: CacheStore, key: EntryKey, token: str) -> Lease:
    """Take a lease for long."""
    lease, _ = await store.take_lease(key, token, 100.0)
    return lease


class Askers:
    """Give the fixtures `make_store` and `clock`."""

    async def test_a_lease_is_one_askers_until_it_ends(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        one, two = make_store(), make_store()
        key, other = entry_key(query()), entry_key(query(user="bob"))
        assert await take(one, key, "a") is Lease.TAKEN
        assert await take(two, key, "b") is Lease.HELD
        assert await take(two, other, "b") is Lease.TAKEN, "another user's is another"
        await two.end_lease(key, "b", open_seconds=0.0)
        assert await take(two, key, "b") is Lease.HELD, "not its own to end"
        await one.end_lease(key, "a", open_seconds=0.0)
        assert await take(two, key, "b") is Lease.TAKEN
        # Ended without an answer, it stands open: nobody waits, nobody takes it.
        await two.end_lease(key, "b", open_seconds=100.0)
        assert await take(one, key, "a") is Lease.OPEN
        await one.end_lease(key, "a", open_seconds=0.0)
        assert await take(one, key, "c") is Lease.OPEN

    async def test_who_asks_for_a_lease_finds_what_was_stored_before(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        one, two = make_store(), make_store()
        key = entry_key(query())
        lease, found = await one.take_lease(key, "a", 100.0)
        assert (lease, found.entry, found.reason) == (Lease.TAKEN, None, "not_found")
        assert (await put(two, clock, query(), "Stored.", stamp=found.stamp)).stored
        # Whether it is taken or not, and by one who has not met the tenant yet.
        for store, expected in ((one, Lease.HELD), (two, Lease.HELD), (make_store(), Lease.HELD)):
            lease, found = await store.take_lease(key, "b", 100.0)
            assert (lease, found) == (expected, await store.get(key))
            assert found.entry is not None
            assert found.entry.answer == "Stored."
        await one.end_lease(key, "a", open_seconds=0.0)
        lease, found = await one.take_lease(key, "b", 100.0)
        assert (lease, found.entry is not None) == (Lease.TAKEN, True)
        await two.invalidate(TENANT, Selector(all=True), dry_run=False)
        lease, found = await one.take_lease(key, "c", 100.0)
        assert (lease, found.entry) == (Lease.HELD, None), "nothing that was invalidated"
        assert found.stamp == (await two.get(key)).stamp

    async def test_askers_are_counted_once_each_and_sharers_flagged_for_a_time(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        one, two = make_store(), make_store()
        key, entry, sources = entry_for(clock, query(), message="bad")
        for store, user, count in ((one, "a", 1), (two, "a", 1), (two, "b", 2), (one, "c", 3)):
            assert await store.note_asker(key, user) == count
        assert await one.note_asker(entry_key(query("other")), "a") == 1
        shared = dataclasses.replace(entry, shared_by="a")
        await one.put(key, shared, sources, NOBODY)
        await put(one, clock, query("private"), message="bad")
        assert await two.flag_sharers(TENANT, Selector(message_id="good")) == 0
        assert await two.flag_sharers(TENANT, Selector(message_id="bad")) == 1
        assert await one.is_flagged(TENANT, "a")
        assert not await one.is_flagged(TENANT, "b")
        assert not await one.is_flagged(TENANT, "")
        assert not await one.is_flagged(tenant_name("globex"), "a")

    async def test_a_lease_that_is_renewed_stands_and_one_that_ended_does_not_come_back(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        one, two = make_store(), make_store()
        key = entry_key(query())
        assert await one.peek_lease(key) is None
        assert not await one.renew_lease(key, "a", 100.0)
        await take(one, key, "a")
        assert await two.peek_lease(key) is Lease.HELD
        assert await two.renew_lease(key, "a", 200.0), "by whichever replica"
        assert not await two.renew_lease(key, "b", 200.0)
        await one.end_lease(key, "a", open_seconds=100.0)
        assert await two.peek_lease(key) is Lease.OPEN
        assert not await one.renew_lease(key, "a", 100.0)
        assert await two.peek_lease(key) is Lease.OPEN

    async def test_of_two_who_announce_the_later_one_sees_the_earlier(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        one, two = make_store(), make_store()
        assert await one.announce(TENANT, "s", "a", b"first", 100.0) == []
        assert await two.announce(TENANT, "s", "b", b"second", 100.0) == [b"first"]
        assert await two.announce(TENANT, "t", "c", b"elsewhere", 100.0) == []
        assert await two.announce(tenant_name("globex"), "s", "d", b"theirs", 100.0) == []
        await two.withdraw(TENANT, "s", "a")
        await two.withdraw(TENANT, "s", "unknown")
        assert await one.announce(TENANT, "s", "e", b"third", 100.0) == [b"second"]
        # Each ends by its own time, unless it is prolonged.
        clock.advance(60)
        await one.prolong(TENANT, "s", "b", 100.0)
        await one.prolong(TENANT, "s", "a", 100.0)
        clock.advance(60)
        assert await one.announce(TENANT, "s", "f", b"last", 100.0) == [b"second"]

    async def test_only_so_many_are_announced(self, make_store: MakeStore, clock: Clock) -> None:
        one, two = make_store(), make_store()
        for number in range(MAX_ANNOUNCED + 3):
            await one.announce(TENANT, "s", f"t{number}", b"%d" % number, 100.0)
            clock.advance(0.01)
        await one.prolong(TENANT, "s", "t0", 100.0)
        seen = await two.announce(TENANT, "s", "late", b"late", 100.0)
        assert list(map(int, seen)) == list(range(MAX_ANNOUNCED)), "the earliest first"
        together = await asyncio.gather(
            *(
                store.announce(TENANT, "u", str(n), b"%d" % n, 100.0)
                for n, store in enumerate([one, two] * 8)
            )
        )
        # Exactly one saw nobody, and no two saw each other.
        assert sorted(len(others) for others in together) == list(range(16))
