"""Single flight: one makes the answer, the others are given it, and nobody waits in vain."""

from __future__ import annotations

import asyncio

import pytest

from parley_cache.admission import AdmissionRules
from parley_cache.barriers import Stamp
from parley_cache.cache import AnswerCache, LeaseWish, Lookup, Verdict
from parley_cache.crowd import Crowd, Leader
from parley_cache.flight import FlightRules, SingleFlight
from parley_cache.guard import Breaker, StoreGuard
from parley_cache.keys import EntryKey, entry_key
from parley_cache.model import Query, Selector
from parley_cache.shelf_life import Expiry
from parley_cache.store.base import Found, Lease, Limits, StoreUnavailable
from parley_cache.store.memory import MemoryStore
from support.cache_store import LIVES, Clock, put, query
from support.meaning import offer
from support.poll import until

WISH = LeaseWish(30.0, 0.0, seeded=False)
NOW = LeaseWish(0.0, 0.0, seeded=False)


def make(store: MemoryStore | None = None, **rules: float) -> AnswerCache:
    store = store or MemoryStore(Limits(10**9, 10**6, 10**9, 10**6), LIVES, Clock())
    guard = StoreGuard(Breaker(50, 60.0))
    flight = SingleFlight(store, guard, FlightRules(**rules))  # type: ignore[arg-type]
    admission = AdmissionRules(allow_global=True, max_question_bytes=10**5, max_answer_bytes=10**5)
    return AnswerCache(store, guard, admission, Expiry(100.0, 0.0), flight=flight)


async def look(cache: AnswerCache, asked: Query, wish: LeaseWish | None = WISH) -> Lookup:
    return await cache.lookup(asked, seconds=5.0, wish=wish)


async def test_of_many_one_gets_the_lease_and_all_others_its_answer() -> None:
    cache = make()
    first = await look(cache, query())
    assert first.lease
    others = [asyncio.create_task(look(cache, query())) for _ in range(19)]
    await asyncio.sleep(0)
    made = offer(query(), "Once.", lease=first.lease, stamp=first.stamp)
    assert (await cache.store(made, seconds=5.0)).stored
    found = await asyncio.gather(*others)
    assert {one.entry.answer for one in found if one.entry} == {"Once."}
    assert all(one.verdict is Verdict.EXACT and not one.lease for one in found)


async def test_who_does_not_wait_is_told_that_another_makes_the_answer() -> None:
    cache = make()
    first = await look(cache, query(), NOW)
    second = await look(cache, query(), NOW)
    assert (bool(first.lease), first.reason) == (True, "not_found")
    assert (second.lease, second.reason) == ("", "in_flight")
    assert (await look(cache, query(), None)).reason == "not_found"
    assert (await look(cache, query(user="bob"), NOW)).lease, "of another user, another flight"


async def test_a_refused_answer_lets_those_who_wait_go_on_at_once() -> None:
    cache = make()
    first = await look(cache, query())
    others = [asyncio.create_task(look(cache, query())) for _ in range(5)]
    await asyncio.sleep(0)
    cut = offer(query(), "Half of", finish_reason="length", lease=first.lease)
    assert (await cache.store(cut, seconds=5.0)).reason == "truncated"
    found = await asyncio.gather(*others)
    assert all(one.verdict is Verdict.MISS and not one.lease for one in found)


async def test_a_released_lease_does_the_same_and_only_its_holder_can() -> None:
    cache = make()
    first = await look(cache, query())
    await cache.release(query(), "somebody else's")
    assert await cache.renew(query(), "somebody else's") == 0.0
    assert (await look(cache, query(), NOW)).reason == "in_flight"
    waiting = asyncio.create_task(look(cache, query()))
    await asyncio.sleep(0)
    await cache.release(query(), first.lease)
    assert (await waiting).verdict is Verdict.MISS


async def test_what_would_not_be_kept_takes_no_lease_and_waits_for_none() -> None:
    cache = make()
    warm = LeaseWish(30.0, 1.0, seeded=False)
    for wish in (warm, LeaseWish(30.0, float("nan"), seeded=False)):
        missed = await look(cache, query(), wish)
        assert (missed.lease, missed.reason) == ("", "not_found")
    assert not (await look(cache, query("what time is it?"))).lease
    assert (await look(cache, query(), LeaseWish(30.0, 1.0, seeded=True))).lease
    # It is held now, and still nobody waits whose answer is not kept.
    assert (await look(cache, query(), warm)).reason == "not_found"


async def test_a_holder_that_vanished_is_followed_by_one_of_those_who_wait() -> None:
    clock = Clock()
    store = MemoryStore(Limits(10**9, 10**6, 10**9, 10**6), LIVES, clock)
    cache = make(store)
    assert (await look(cache, query())).lease
    waiting = [asyncio.create_task(look(cache, query())) for _ in range(4)]
    await asyncio.sleep(0)
    clock.advance(31)
    done, others = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    [next_one] = done
    lease = next_one.result().lease
    assert lease
    made = offer(query(), lease=lease, stamp=next_one.result().stamp)
    assert (await cache.store(made, seconds=5.0)).stored
    assert all(one.verdict is Verdict.EXACT for one in await asyncio.gather(*others))


async def test_waiting_is_bounded_in_time_and_in_number() -> None:
    cache = make(max_wait_seconds=0.05)
    assert (await look(cache, query())).lease
    assert (await look(cache, query())).verdict is Verdict.MISS
    crowded = make(max_waiting=0)
    assert (await look(crowded, query())).lease
    assert (await look(crowded, query())).verdict is Verdict.MISS


class Failing(MemoryStore):
    """A store whose leases fail."""

    async def take_lease(self, key: EntryKey, token: str, seconds: float) -> tuple[Lease, Found]:
        raise StoreUnavailable("gone")

    async def end_lease(self, key: EntryKey, token: str, *, open_seconds: float) -> None:
        raise StoreUnavailable("gone")


async def test_a_store_that_fails_holds_nobody_up() -> None:
    cache = make(Failing(Limits(10**9, 10**6, 10**9, 10**6), LIVES, Clock()))
    missed = await look(cache, query())
    assert (missed.verdict, missed.lease, missed.reason) == (Verdict.MISS, "", "not_found")
    stored = await cache.store(offer(query(), lease="a", stamp=missed.stamp), seconds=5.0)
    assert stored.stored
    await cache.release(query(), "a")


class Beaten(MemoryStore):
    """A store that is given an answer just before a lease of its key is asked for."""

    async def take_lease(self, key: EntryKey, token: str, seconds: float) -> tuple[Lease, Found]:
        await put(self, Clock(), query(), "Just stored.")
        return await super().take_lease(key, token, seconds)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("wish", [WISH, NOW], ids=["patient", "not"])
async def test_an_answer_that_came_since_the_miss_is_given_and_no_lease_kept(
    wish: LeaseWish, held: bool
) -> None:
    store = Beaten(Limits(10**9, 10**6, 10**9, 10**6), LIVES, Clock())
    key = entry_key(query())
    if held:
        await MemoryStore.take_lease(store, key, "another's", 15.0)
    found = await look(make(store), query(), wish)
    assert found.entry is not None
    assert (found.verdict, found.entry.answer) == (Verdict.EXACT, "Just stored.")
    assert found.lease == ""
    assert await store.peek_lease(key) is (Lease.HELD if held else None)


async def test_nobody_is_given_what_was_invalidated_while_they_waited() -> None:
    cache = make()
    first = await look(cache, query())
    waiting = asyncio.create_task(look(cache, query(), LeaseWish(0.3, 0.0, seeded=False)))
    await asyncio.sleep(0)
    await cache.invalidate("acme", Selector(user="ann"), dry_run=False, seconds=5.0)
    late = offer(query(), lease=first.lease, stamp=first.stamp or Stamp(None, 0).encode())
    assert (await cache.store(late, seconds=5.0)).reason == "invalidated"
    assert (await waiting).entry is None


class OneLeader(Crowd):
    """Knows one who makes an equivalent answer, who is gone when looked for again."""

    def __init__(self, leader: Leader) -> None:
        self.leaders = [leader]

    async def join(self, query: Query, token: str, seconds: float) -> Leader | None:
        return self.leaders.pop() if self.leaders else None

    async def leave(self, query: Query, token: str) -> None:
        assert not self.leaders


async def test_who_waits_and_then_follows_another_is_counted_once() -> None:
    store = MemoryStore(Limits(10**9, 10**6, 10**9, 10**6), LIVES, Clock())
    key = entry_key(query())
    crowd = OneLeader(Leader(entry_key(query(user="bob")), "same_meaning", 0.9))
    guard = StoreGuard(Breaker(50, 60.0))
    flight = SingleFlight(store, guard, FlightRules(max_waiting=1), crowd)
    assert (await store.take_lease(key, "before", 15.0))[0] is Lease.TAKEN

    asker = asyncio.create_task(flight.board(query(), max_wait=30.0, semantic=True))
    await until(lambda: flight._waiting == 1)
    await store.end_lease(key, "before", open_seconds=0.0)

    assert (await asker).lease, "not refused as one too many"
    assert flight._waiting == 0
