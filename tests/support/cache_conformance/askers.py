"""Leases of those who ask at once, and who may share."""

from __future__ import annotations

import dataclasses

from parley_cache.keys import entry_key, tenant_name
from parley_cache.model import Selector
from parley_cache.store.base import Lease
from support.cache_store import NOBODY, TENANT, Clock, MakeStore, entry_for, put, query


class Askers:
    """Give the fixtures `make_store` and `clock`."""

    async def test_a_lease_is_one_askers_until_it_ends(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        one, two = make_store(), make_store()
        key, other = entry_key(query()), entry_key(query(user="bob"))
        assert await one.take_lease(key, "a", 100.0) is Lease.TAKEN
        assert await two.take_lease(key, "b", 100.0) is Lease.HELD
        assert await two.take_lease(other, "b", 100.0) is Lease.TAKEN, "another user's is another"
        await two.end_lease(key, "b", open_seconds=0.0)
        assert await two.take_lease(key, "b", 100.0) is Lease.HELD, "not its own to end"
        await one.end_lease(key, "a", open_seconds=0.0)
        assert await two.take_lease(key, "b", 100.0) is Lease.TAKEN
        # Ended without an answer, it stands open: nobody waits, nobody takes it.
        await two.end_lease(key, "b", open_seconds=100.0)
        assert await one.take_lease(key, "a", 100.0) is Lease.OPEN
        await one.end_lease(key, "a", open_seconds=0.0)
        assert await one.take_lease(key, "c", 100.0) is Lease.OPEN

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
