"""What any cache store must do: one suite, run against each of them."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import time
from typing import Protocol

import pytest

from parley_cache.barriers import Stamp
from parley_cache.keys import EntryKey, entry_key, tenant_name
from parley_cache.model import (
    Credit,
    Entry,
    Meaning,
    Partition,
    Query,
    Recalled,
    Scope,
    Selector,
    Sources,
    Totals,
)
from parley_cache.store.base import (
    ENTRY_OVERHEAD_BYTES,
    BarrierLives,
    CacheStore,
    Lease,
    Limits,
    Put,
    Removed,
    StoreFull,
)
from parley_cache.store.worth import HALF_LIFE_SECONDS

LIVES = BarrierLives(tombstone_seconds=1000.0, barrier_seconds=100.0)
TENANT = tenant_name("acme")
NOBODY = Stamp(None, 0)


class Clock:
    """Unix seconds that a test moves; they begin at the real time, as Redis' do."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class MakeStore(Protocol):
    """Makes a store that shares its data with those made before in the same test."""

    def __call__(self, limits: Limits | None = None) -> CacheStore: ...


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def query(question: str = "What is a heron?", **changes: object) -> Query:
    partition = Partition(
        tenant="acme",
        scope=Scope.USER,
        user="ann",
        model="smol",
        model_revision="r1",
        options_digest=digest("options"),
        system_digest=digest("system"),
    )
    partition_changes = {k: v for k, v in changes.items() if hasattr(partition, k)}
    rest = {k: v for k, v in changes.items() if k not in partition_changes}
    base = Query(
        partition=dataclasses.replace(partition, **partition_changes),  # type: ignore[arg-type]
        context_fingerprint=digest("context"),
        context_messages=0,
        question=question,
    )
    return dataclasses.replace(base, **rest)  # type: ignore[arg-type]


_serial = itertools.count()


def entry_for(
    clock: Clock,
    asked: Query,
    answer: str = "A wading bird.",
    *,
    chat: str = "chat-1",
    message: str | None = None,
    user: str | None = None,
    ttl: float = 100.0,
    tokens: int = 4,
) -> tuple[EntryKey, Entry, Sources]:
    key = entry_key(asked)
    message = message or f"{chat}-{next(_serial)}"
    entry = Entry(
        entry_id=key.entry_id,
        check=key.check,
        answer=answer,
        finish_reason="stop",
        prompt_tokens=7,
        completion_tokens=tokens,
        source_message_id=message,
        source_chat_id=chat,
        stored_at=clock(),
        expires_at=clock() + ttl,
    )
    sources = Sources(chat, message, user or asked.partition.user, asked.partition.model)
    return key, entry, sources


async def put(
    store: CacheStore,
    clock: Clock,
    asked: Query,
    answer: str = "A wading bird.",
    *,
    stamp: Stamp | None = NOBODY,
    **sources: object,
) -> Put:
    key, entry, named = entry_for(clock, asked, answer, **sources)  # type: ignore[arg-type]
    return await store.put(key, entry, named, stamp)


async def answer_of(store: CacheStore, asked: Query) -> str | None:
    found = await store.get(entry_key(asked))
    return found.entry.answer if found.entry else None


class StoreConformance:
    """Derive, and give the fixtures `make_store` and `clock`."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

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

    async def test_a_nominated_entry_is_recalled_only_while_it_stands(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        store, other = make_store(), make_store()
        key, entry, sources = entry_for(clock, query())
        meaning = Meaning("space", "What is a heron?", b"\x00\x00\x80\x3f")
        await store.put(key, entry, sources, NOBODY, meaning)
        plain = entry_key(query("no meaning")).entry_id
        await put(store, clock, query("no meaning"))
        ids = ["unknown", key.entry_id, plain]
        assert await other.recall(TENANT, ids) == [None, Recalled(entry, meaning), None]
        assert await other.recall(tenant_name("globex"), ids) == [None, None, None]
        assert await store.meanings(TENANT, ids) == {key.entry_id: meaning}
        assert sorted([i async for page in store.ids(TENANT) for i in page]) == sorted(ids[1:])
        assert await store.tenants() == {TENANT: 2}
        # Replaced by one without a meaning, none is left of the first.
        await store.put(key, entry, sources, NOBODY)
        assert await other.recall(TENANT, [key.entry_id]) == [None]
        await store.put(key, entry, sources, NOBODY, meaning)
        await store.invalidate(TENANT, Selector(all=True), dry_run=False)
        assert await other.recall(TENANT, [key.entry_id]) == [None]
        stamp = (await store.get(key)).stamp
        assert (await store.put(key, entry, sources, stamp, meaning)).stored
        assert await other.recall(TENANT, [key.entry_id]) == [Recalled(entry, meaning)]
        clock.advance(200)
        assert await other.recall(TENANT, [key.entry_id]) == [None]

    async def test_what_leaves_is_told_so_that_the_index_forgets_it(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        store = make_store(Limits(10**9, 10**6, tenant_bytes=10**9, tenant_entries=3))
        told: list[Removed] = []
        store.listen(told.extend)

        async def keep(question: str, space: str, **more: object) -> str:
            key, entry, sources = entry_for(clock, query(question), **more)  # type: ignore[arg-type]
            await store.put(key, entry, sources, NOBODY, Meaning(space, question, b"1234"))
            return entry.entry_id

        invalidated = await keep("one", "s1", chat="c1")
        await put(store, clock, query("two"), chat="c1")
        await store.invalidate(TENANT, Selector(chat_id="c1"), dry_run=True)
        assert not told
        await store.invalidate(TENANT, Selector(chat_id="c1"), dry_run=False)
        assert told == [Removed(TENANT, "s1", invalidated)]
        told.clear()
        expired = await keep("three", "s2", ttl=10.0)
        evicted = await keep("four", "s3")
        clock.advance(20)
        await store.sweep()
        assert told == [Removed(TENANT, "s2", expired)]
        told.clear()
        for number in range(3):
            clock.advance(1)
            await put(store, clock, query(f"q{number}"), tokens=100)
        assert told == [Removed(TENANT, "s3", evicted)]
        told.clear()
        await store.invalidate(TENANT, Selector(all=True), dry_run=False)
        assert Removed(TENANT, "", "") in told

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
