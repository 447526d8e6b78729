"""The cache over its in-memory store: isolation, admission, failures."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parley_cache import cache as cache_module
from parley_cache.admission import AdmissionRules
from parley_cache.cache import AnswerCache, Verdict
from parley_cache.guard import Breaker, StoreGuard
from parley_cache.keys import EntryKey, entry_key
from parley_cache.model import Offer, Query, Scope, Selector
from parley_cache.normalise import normalise_question
from parley_cache.shelf_life import Expiry
from parley_cache.store.base import CacheStore, Found, Limits, StoreUnavailable
from parley_cache.store.memory import MemoryStore
from support.cache_store import LIVES, Clock, digest, query

ROOMY = Limits(10**9, 10**6, 10**9, 10**6)
RULES = AdmissionRules(allow_global=True, max_question_bytes=10**5, max_answer_bytes=10**5)


def make_cache(store: CacheStore | None = None, clock: Clock | None = None) -> AnswerCache:
    clock = clock or Clock()
    guard = StoreGuard(Breaker(3, 60.0, clock))
    store = store or MemoryStore(ROOMY, LIVES, clock)
    return AnswerCache(store, guard, RULES, Expiry(100.0, 0.1), clock=clock, least_askers=1)


def offer_of(asked: Query, answer: str, **changes: object) -> Offer:
    base = Offer(
        query=asked,
        answer=answer,
        finish_reason="stop",
        prompt_tokens=5,
        completion_tokens=4,
        source_message_id="m-1",
        source_chat_id="c-1",
        source_user=asked.partition.user or "ann",
        temperature=0.0,
        seeded=False,
        stamp="-.0",
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


NAMES = st.sampled_from(["a", "b", "ab", "a b", "", "ä", "a\u0308", "A", "a:b", "{a}", "*"])
REQUIRED = NAMES.filter(bool)
QUERIES = st.builds(
    lambda scope, user, rest, question, context, count: query(
        question,
        scope=scope,
        user=user if scope is Scope.USER else "",
        context_messages=count if scope is Scope.USER else 0,
        context_fingerprint=digest(context),
        **rest,
    ),
    st.sampled_from([Scope.USER, Scope.USER, Scope.GLOBAL]),
    REQUIRED,
    st.fixed_dictionaries(
        {
            "tenant": REQUIRED,
            "model": REQUIRED,
            "model_revision": NAMES,
            "options_digest": st.sampled_from([digest("o1"), digest("o2")]),
            "system_digest": st.sampled_from([digest("s1"), digest("s2")]),
        }
    ),
    st.sampled_from(["heron", "heron ", "Heron", "her on", "her  on", "heron?", "ĥeron"]),
    st.sampled_from(["", "x", "y"]),
    st.sampled_from([0, 2]),
)


def identity(asked: Query) -> object:
    """What two queries must share to be given one answer, said without the code under test."""
    question = " ".join(asked.question.split())
    return (dataclasses.replace(asked, question=""), question)


@given(st.lists(st.tuples(QUERIES, st.booleans()), min_size=2, max_size=40))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_answer_crosses_any_key(steps: list[tuple[Query, bool]]) -> None:
    async def play() -> None:
        cache = make_cache()
        truth: dict[object, str] = {}
        for number, (asked, is_store) in enumerate(steps):
            if is_store:
                answer = f"answer {number}"
                stored = await cache.store(offer_of(asked, answer), seconds=1.0)
                assert stored.stored
                truth[identity(asked)] = answer
            found = await cache.lookup(asked, seconds=1.0)
            expected = truth.get(identity(asked))
            assert (found.entry.answer if found.entry else None) == expected
            assert (found.verdict is Verdict.EXACT) == (expected is not None)

    asyncio.run(play())


async def test_a_hit_gives_the_answer_and_its_age() -> None:
    clock = Clock()
    cache = make_cache(clock=clock)
    assert (await cache.lookup(query(), seconds=1.0)).reason == "not_found"
    assert (await cache.store(offer_of(query(), "A bird."), seconds=1.0)).stored
    clock.advance(42)
    hit = await cache.lookup(query(), seconds=1.0)
    assert hit.entry is not None
    assert hit.entry.answer == "A bird."
    assert hit.age_seconds == pytest.approx(42)


async def test_expiry_is_drawn_within_the_jitter() -> None:
    drawn = {Expiry(100.0, 0.1).draw() for _ in range(200)}
    assert all(90.0 <= seconds <= 110.0 for seconds in drawn)
    assert len(drawn) > 100


async def test_a_refused_question_is_a_miss_that_never_reaches_the_store() -> None:
    cache = make_cache(FailingStore(StoreUnavailable("never asked")))
    found = await cache.lookup(query("What time is it?"), seconds=1.0)
    assert (found.verdict, found.reason) == (Verdict.MISS, "time_dependent")


async def test_forced_collisions_are_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    def colliding(asked: Query) -> EntryKey:
        return dataclasses.replace(entry_key(asked), tenant="t" * 32, entry_id="0" * 64)

    monkeypatch.setattr(cache_module, "entry_key", colliding)
    cache = make_cache()
    await cache.store(offer_of(query("one"), "answer to one"), seconds=1.0)
    found = await cache.lookup(query("two"), seconds=1.0)
    assert (found.entry, found.reason) == (None, "collision")
    assert (await cache.lookup(query("one"), seconds=1.0)).entry is not None


async def test_a_damaged_entry_is_a_miss_and_deleted() -> None:
    clock = Clock()
    store = MemoryStore(ROOMY, LIVES, clock)
    cache = make_cache(store, clock)
    await cache.store(offer_of(query(), "whole"), seconds=1.0)
    key = entry_key(query())
    store._tenants[key.tenant].entries[key.entry_id].blob = b"\x01 damaged"
    assert (await cache.lookup(query(), seconds=1.0)).reason == "corrupt"
    assert (await cache.lookup(query(), seconds=1.0)).reason == "not_found"


class FailingStore:
    """A store that fails, or never answers."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        async def fail(*args: object, **kwargs: object) -> Found:
            self.calls += 1
            if self.error is None:
                await asyncio.Event().wait()
            assert self.error is not None
            raise self.error

        return fail


async def test_a_store_that_is_away_is_a_miss_but_never_a_confirmed_invalidation() -> None:
    cache = make_cache(FailingStore(StoreUnavailable("away")))
    found = await cache.lookup(query(), seconds=1.0)
    assert (found.verdict, found.reason) == (Verdict.MISS, "store_unavailable")
    stored = await cache.store(offer_of(query(), "x"), seconds=1.0)
    assert (stored.stored, stored.reason) == (False, "store_unavailable")
    with pytest.raises(StoreUnavailable):
        await cache.invalidate("acme", Selector(all=True), dry_run=False, seconds=1.0)
    with pytest.raises(StoreUnavailable):
        await cache.totals("acme", seconds=1.0)


async def test_a_store_that_never_answers_costs_the_budget_and_then_nothing() -> None:
    store = FailingStore(None)
    cache = make_cache(store)
    for _ in range(3):
        assert (await cache.lookup(query(), seconds=0.03)).reason == "store_unavailable"
    assert store.calls == 3
    # The breaker is open: answered at once, though the budget is an hour.
    assert (await cache.lookup(query(), seconds=3600.0)).reason == "store_unavailable"
    assert store.calls == 3


async def test_the_breaker_probes_and_closes_again() -> None:
    clock = Clock()
    store = FailingStore(StoreUnavailable("away"))
    cache = make_cache(store, clock)
    for _ in range(10):
        await cache.lookup(query(), seconds=1.0)
    assert store.calls == 3
    clock.advance(61)
    await cache.lookup(query(), seconds=1.0)
    await cache.lookup(query(), seconds=1.0)
    assert store.calls == 4, "one probe, then shut again"
    clock.advance(61)
    healthy = MemoryStore(ROOMY, LIVES, clock)
    cache._store = healthy
    assert (await cache.lookup(query(), seconds=1.0)).reason == "not_found"
    assert (await cache.lookup(query(), seconds=1.0)).reason == "not_found"


async def test_tiny_budgets_of_one_caller_do_not_shut_the_cache_for_others() -> None:
    store = FailingStore(None)
    cache = make_cache(store)
    for _ in range(10):
        assert (await cache.lookup(query(), seconds=0.0)).reason == "store_unavailable"
    assert store.calls == 10


async def test_cancelling_a_lookup_cancels_it() -> None:
    cache = make_cache(FailingStore(None))
    task = asyncio.create_task(cache.lookup(query(), seconds=60.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_normalising_agrees_with_the_identity_that_the_property_test_uses() -> None:
    spellings = OrderedDict((normalise_question(text), text) for text in ("her on", "her  on"))
    assert len(spellings) == 1
