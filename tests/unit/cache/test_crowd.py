"""Single flight for questions that mean the same: one answer is made, and nothing crosses a key."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parley_cache.cache import AnswerCache, LeaseWish, Lookup, Verdict
from parley_cache.model import Query, Scope, Selector
from parley_cache.store.base import Lease, StoreUnavailable
from parley_cache.store.memory import MemoryStore
from parley_cache.tier import TierRules
from support.cache_store import query
from support.meaning import World, offer, semantic_world
from support.poll import until

ASKED = "How can I reset my password?"
ALIKE = "What is the way to reset a password?"
TRAP = "How can I not reset my password?"
PATIENT = LeaseWish(30.0, 0.0, seeded=False)
NOW = LeaseWish(0.0, 0.0, seeded=False)


async def look(
    cache: AnswerCache, asked: Query, wish: LeaseWish = PATIENT, *, semantic: bool = True
) -> Lookup:
    return await cache.lookup(asked, seconds=5.0, semantic=semantic, wish=wish, user="ann")


@contextlib.asynccontextmanager
async def two_replicas() -> AsyncIterator[tuple[World, World]]:
    async with semantic_world() as one, semantic_world(store=one.store, clock=one.clock) as two:
        yield one, two


async def waiting(*worlds: World, count: int = 1) -> None:
    """Return when so many wait for another's answer."""

    def there() -> bool:
        flights = [world.cache._flight for world in worlds]
        return sum(flight._waiting for flight in flights if flight is not None) == count

    await until(there)


async def test_who_asks_the_same_otherwise_waits_for_the_one_answer() -> None:
    async with two_replicas() as (one, two):
        first = await look(one.cache, query(ASKED))
        assert first.lease
        others = [
            asyncio.create_task(look(world.cache, query(ALIKE + "?" * n)))
            for n, world in enumerate([one, two] * 3)
        ]
        await waiting(one, two, count=6)
        made = offer(query(ASKED), "Like this.", lease=first.lease, stamp=first.stamp)
        assert (await one.cache.store(made, seconds=5.0)).stored
        for found in await asyncio.gather(*others):
            assert found.entry is not None
            assert (found.entry.answer, found.lease) == ("Like this.", "")
            assert found.verdict is Verdict.SEMANTIC
            assert found.reason in ("same_meaning", "same_words")
            assert 0.5 < (found.similarity or 0.0) <= 1.0


async def test_who_comes_alone_embeds_nothing_and_who_comes_next_embeds_both() -> None:
    async with two_replicas() as (one, two):
        before, also = one.model.texts, two.model.texts
        first = await look(one.cache, query(ASKED), NOW)
        assert first.lease
        assert one.model.texts == before
        assert (await look(two.cache, query(ALIKE), NOW)).reason == "in_flight"
        assert two.model.texts == also + 2


async def test_who_announces_with_a_vector_is_not_embedded_again() -> None:
    async with two_replicas() as (one, two):
        # There is something to compare with: the look-up has embedded the question.
        for world in (one, two):
            stored = await world.cache.store(offer(query("bananas and potassium")), seconds=5.0)
            assert stored.stored
        assert (await look(one.cache, query(ASKED), NOW)).lease
        also = two.model.texts
        assert (await look(two.cache, query(ALIKE), NOW)).reason == "in_flight"
        assert two.model.texts == also + 1


async def test_of_many_who_came_alone_only_a_few_are_embedded_for_the_next() -> None:
    async with two_replicas() as (one, two):
        for number in range(20):
            asked = query(f"{'colour ' * number}chosen")
            assert one.cache._flight is not None
            crowd = one.cache._flight._crowd
            assert crowd is not None
            await crowd.join(asked, f"{number:032x}", 15.0)
        also = two.model.texts
        assert (await look(two.cache, query(ASKED), NOW)).lease
        assert also < two.model.texts <= also + 1 + TierRules().nominees


async def test_where_the_leader_cannot_be_embedded_the_next_one_leads_as_well() -> None:
    async with two_replicas() as (one, two):
        assert (await look(one.cache, query(ASKED), NOW)).lease
        two.model.fault = RuntimeError("broken")
        assert (await look(two.cache, query(ALIKE), NOW)).lease


async def test_who_does_not_wait_is_told_and_holds_nothing() -> None:
    async with two_replicas() as (one, two):
        first = await look(one.cache, query(ASKED), NOW)
        second = await look(two.cache, query(ALIKE), NOW)
        assert (second.lease, second.reason) == ("", "in_flight")
        # Nobody holds the lease of the other wording, and no third follows the second.
        await one.cache.release(query(ASKED), first.lease)
        third = await look(two.cache, query(ALIKE), NOW)
        assert third.lease


@pytest.mark.parametrize(
    "change",
    [
        {"user": "bob"},
        {"tenant": "globex"},
        {"model": "other"},
        {"options_digest": b"o" * 32},
        {"system_digest": b"s" * 32},
        {"context_fingerprint": b"c" * 32},
        {"context_messages": 2},
        {"scope": Scope.GLOBAL, "user": ""},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_nobody_waits_across_a_key(change: dict[str, object]) -> None:
    async with two_replicas() as (one, two):
        assert (await look(one.cache, query(ASKED))).lease
        assert (await look(two.cache, query(ALIKE, **change))).lease


async def test_a_trap_is_not_waited_for_nor_where_meaning_does_not_count() -> None:
    async with two_replicas() as (one, two):
        assert (await look(one.cache, query(ASKED))).lease
        assert (await look(two.cache, query(TRAP))).lease
        assert (await look(two.cache, query(ALIKE), semantic=False)).lease


async def test_a_raised_bar_keeps_others_from_following() -> None:
    async with two_replicas() as (one, two):
        stored = await one.cache.store(offer(query(ASKED), source_message_id="bad"), seconds=5.0)
        assert stored.stored
        await one.cache.invalidate("acme", Selector(message_id="bad"), dry_run=False, seconds=5.0)
        assert (await look(one.cache, query(ASKED))).lease
        assert (await look(two.cache, query(ALIKE))).lease


async def test_an_answer_that_is_not_kept_lets_them_go_on_at_once() -> None:
    async with two_replicas() as (one, two):
        first = await look(one.cache, query(ASKED))
        other = asyncio.create_task(look(two.cache, query(ALIKE)))
        await waiting(two)
        cut = offer(query(ASKED), "Half", finish_reason="length", lease=first.lease)
        assert (await one.cache.store(cut, seconds=5.0)).reason == "truncated"
        found = await other
        assert (found.verdict, found.entry) == (Verdict.MISS, None)


async def test_a_leader_that_vanished_is_followed_by_one_of_the_others() -> None:
    async with two_replicas() as (one, two):
        assert (await look(one.cache, query(ASKED))).lease
        others = [asyncio.create_task(look(world.cache, query(ALIKE))) for world in (one, two, one)]
        await waiting(one, two, count=3)
        one.clock.advance(16)
        done, left = await asyncio.wait(others, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        [leader] = [task.result() for task in done]
        assert leader.lease
        made = offer(query(ALIKE), "Anew.", lease=leader.lease, stamp=leader.stamp)
        assert (await two.cache.store(made, seconds=5.0)).stored
        for found in await asyncio.gather(*left):
            assert found.entry is not None
            assert found.entry.answer == "Anew."


async def test_a_lease_that_is_renewed_outlives_its_time() -> None:
    async with two_replicas() as (one, two):
        first = await look(one.cache, query(ASKED))
        for _ in range(5):
            one.clock.advance(10)
            assert await two.cache.renew(query(ASKED), first.lease) == 15.0
        assert (await look(two.cache, query(ASKED), NOW)).reason == "in_flight"
        assert (await look(two.cache, query(ALIKE), NOW)).reason == "in_flight"
        one.clock.advance(16)
        assert await two.cache.renew(query(ASKED), first.lease) == 0.0
        assert (await look(two.cache, query(ALIKE), NOW)).lease


async def test_where_nobody_can_be_announced_everybody_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*_: object) -> object:
        raise StoreUnavailable("gone")

    async with two_replicas() as (one, two):
        monkeypatch.setattr(one.store, "announce", away)
        first = await look(one.cache, query(ASKED))
        second = await look(two.cache, query(ALIKE))
        assert first.lease
        assert second.lease
        monkeypatch.setattr(one.store, "withdraw", away)
        made = offer(query(ASKED), lease=first.lease, stamp=first.stamp)
        assert (await one.cache.store(made, seconds=5.0)).stored


async def test_who_follows_goes_on_when_the_store_goes_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*_: object) -> Lease:
        raise StoreUnavailable("gone")

    async with two_replicas() as (one, two):
        assert (await look(one.cache, query(ASKED))).lease
        other = asyncio.create_task(look(two.cache, query(ALIKE)))
        await waiting(two)
        monkeypatch.setattr(one.store, "peek_lease", away)
        found = await other
        assert (found.verdict, found.lease) == (Verdict.MISS, "")


async def test_damaged_announcements_are_passed_over() -> None:
    async with two_replicas() as (one, two):
        first = await look(one.cache, query(ASKED))
        assert isinstance(one.store, MemoryStore)
        [announced] = [t.announced for t in one.store._tenants.values() if t.announced]
        [space] = announced
        record, until = announced[space][first.lease]
        announced[space] = {"x": (record[:-1], until), "y": (b"", until)}
        assert (await look(two.cache, query(ALIKE))).lease


NAMES = st.sampled_from(["a", "b", "a b"])
ASKERS = st.builds(
    lambda scope, tenant, user, model, question: query(
        question,
        scope=scope,
        tenant=tenant,
        user=user if scope is Scope.USER else "",
        model=model,
    ),
    st.sampled_from(Scope),
    NAMES,
    NAMES,
    NAMES,
    st.sampled_from([ASKED, ALIKE, "reset password way", TRAP]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ASKERS, min_size=2, max_size=8))
def test_no_answer_that_is_waited_for_crosses_any_key(asked: list[Query]) -> None:
    async def go() -> None:
        async with (
            semantic_world(least_askers=1) as one,
            semantic_world(store=one.store, least_askers=1) as two,
        ):
            made_for: dict[str, Query] = {}

            async def ask(number: int, cache: AnswerCache, one_asked: Query) -> None:
                wish = LeaseWish(2.0, 0.0, seeded=False)
                found = await look(cache, one_asked, wish)
                if found.entry is not None:
                    source = made_for[found.entry.answer]
                    assert dataclasses.replace(source, question="") == dataclasses.replace(
                        one_asked, question=""
                    )
                    assert (source.question == TRAP) == (one_asked.question == TRAP)
                    return
                answer = f"answer {number}"
                made_for[answer] = one_asked
                await cache.store(
                    offer(one_asked, answer, lease=found.lease, stamp=found.stamp), seconds=5.0
                )

            async with asyncio.TaskGroup() as group:
                for number, one_asked in enumerate(asked):
                    cache = (one, two)[number % 2].cache
                    group.create_task(ask(number, cache, one_asked))

    asyncio.run(go())
