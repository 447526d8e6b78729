"""The semantic tier over the in-memory store: what it serves, and what it never does."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from parley_cache.cache import Lookup, Verdict
from parley_cache.index.base import IndexUnavailable, Item, Nominee, Place
from parley_cache.keys import entry_key, space_name
from parley_cache.model import Credit, Meaning, Query, Recalled, Scope, Selector
from parley_cache.store.base import StoreUnavailable
from support.cache_store import TENANT, digest, entry_for, query
from support.meaning import WordModel, World, offer, semantic_world

ASKED = "How can I reset my password?"
ALIKE = "What is the way to reset a password?"
SECONDS = 5.0


async def look(world: World, asked: Query, *, semantic: bool = True) -> Lookup:
    await world.writer.settled()
    return await world.cache.lookup(asked, seconds=SECONDS, semantic=semantic)


async def keep(world: World, asked: Query, answer: str = "An answer.", **changes: object) -> None:
    stored = await world.cache.store(offer(asked, answer, **changes), seconds=SECONDS)
    assert stored.stored, stored.reason
    await world.writer.settled()


async def test_a_paraphrase_is_given_the_answer_with_similarity_and_reason() -> None:
    async with semantic_world() as world:
        await keep(world, query(ASKED), "Like this.")
        found = await look(world, query(ALIKE))
        assert found.verdict is Verdict.SEMANTIC
        assert found.entry is not None
        assert found.entry.answer == "Like this."
        assert found.reason in ("same_meaning", "same_words")
        assert found.similarity is not None
        assert 0.5 < found.similarity <= 1.0
        exact = await look(world, query(ASKED))
        assert (exact.verdict, exact.similarity) == (Verdict.EXACT, None)


class Refusing:
    """A cross-encoder that gives one estimate; notes what it was asked."""

    def __init__(self, estimate: float) -> None:
        self.estimate = estimate
        self.asked: list[str] = []

    def judge(self, question: str, candidates: Sequence[str]) -> list[float]:
        self.asked += candidates
        return [self.estimate for _ in candidates]


@pytest.mark.parametrize(("estimate", "served"), [(0.9, True), (0.1, False), (float("nan"), False)])
async def test_a_cross_encoder_may_refuse_what_the_check_lets_through(
    estimate: float, served: bool
) -> None:
    judge = Refusing(estimate)
    async with semantic_world(judge=judge) as world:
        await keep(world, query(ASKED))
        found = await look(world, query(ALIKE))
        assert (found.verdict is Verdict.SEMANTIC) is served
        assert served or found.reason == "cross_encoder"
        assert judge.asked == [ASKED]
        # The very same words need no judge.
        assert (await look(world, query(ASKED.lower()))).entry is not None
        assert judge.asked == [ASKED]


async def test_where_it_is_not_allowed_only_the_very_question_is_answered() -> None:
    async with semantic_world() as world:
        await keep(world, query(ASKED))
        found = await look(world, query(ALIKE), semantic=False)
        assert (found.verdict, found.reason) == (Verdict.MISS, "not_found")
        assert world.model.texts > 0


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("Is it safe to eat raw eggs?", "Is it unsafe to eat raw eggs?"),
        ("Fly from Paris to Rome", "Fly from Rome to Paris"),
        ("What is 5 percent of 200?", "What is 6 percent of 200?"),
        ("How do I enable two-factor login?", "How do I disable two-factor login?"),
    ],
)
async def test_a_trap_is_a_miss_that_says_why(stored: str, asked: str) -> None:
    async with semantic_world() as world:
        await keep(world, query(stored))
        found = await look(world, query(asked))
        assert found.verdict is Verdict.MISS
        assert found.entry is None
        assert found.reason not in ("", "not_found")


@pytest.mark.parametrize(
    "change",
    [
        {"user": "bob"},
        {"tenant": "globex"},
        {"model": "other"},
        {"model_revision": "r2"},
        {"options_digest": digest("other options")},
        {"system_digest": digest("another prompt")},
        {"context_fingerprint": digest("another conversation")},
        {"context_messages": 2},
        {"scope": Scope.GLOBAL, "user": ""},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_nothing_crosses_a_key_even_if_the_index_says_so(change: dict[str, object]) -> None:
    async with semantic_world() as world:
        await keep(world, query(ASKED), "Mine.")
        theirs = query(ALIKE, **change)
        assert (await look(world, theirs)).entry is None
        # An index that puts the entry where the other one seeks is not believed.
        [vector] = world.model.embed([ASKED])
        for tenant in {TENANT, entry_key(theirs).tenant}:
            place = Place(tenant, space_name(theirs, "words:1"), entry_key(query(ASKED)).entry_id)
            await world.index.add(Item(place, vector))
        found = await look(world, theirs)
        assert found.entry is None
        assert found.reason == "candidates_gone"
        await world.writer.settled()
        assert (await look(world, theirs)).reason == "not_found", "it was forgotten"


NAMES = st.sampled_from(["a", "b", "ab", "a b", "ä", "A", "a:b", "{a}"])
QUESTIONS = st.sampled_from([ASKED, ALIKE, "reset password way", "how to reset the password"])
QUERIES = st.builds(
    lambda scope, tenant, user, model, revision, options, system, context, question: query(
        question,
        scope=scope,
        tenant=tenant,
        user=user if scope is Scope.USER else "",
        model=model,
        model_revision=revision,
        options_digest=digest(options),
        system_digest=digest(system),
        context_fingerprint=digest(context),
        context_messages=0 if scope is Scope.GLOBAL else len(context) % 2,
    ),
    st.sampled_from(Scope),
    NAMES,
    NAMES,
    NAMES,
    NAMES,
    NAMES,
    NAMES,
    NAMES,
    QUESTIONS,
)


def _key(asked: Query) -> Query:
    return dataclasses.replace(asked, question="")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(QUERIES, min_size=2, max_size=8), st.data())
def test_no_answer_crosses_any_key_with_the_semantic_tier_on(
    asked: list[Query], data: st.DataObject
) -> None:
    async def go() -> None:
        async with semantic_world(least_askers=1) as world:
            by_answer: dict[str, Query] = {}
            for number, one in enumerate(asked):
                answer = f"answer {number}"
                result = await world.cache.store(offer(one, answer), seconds=SECONDS)
                if result.stored:
                    by_answer[answer] = one
            # Neighbours of those stored: one field of the key changed at random.
            twins = [data.draw(QUERIES.map(partial(_mixed, one))) for one in asked]
            for one in [*asked, *twins]:
                found = await look(world, one)
                if found.entry is not None:
                    source = by_answer[found.entry.answer]
                    assert _key(source) == _key(one)

    asyncio.run(go())


def _mixed(one: Query, other: Query) -> Query:
    """`one` with its model and question of the other, so that only one key field differs."""
    partition = dataclasses.replace(one.partition, model=other.partition.model)
    return dataclasses.replace(one, partition=partition, question=other.question)


async def test_what_leaves_the_store_is_served_no_more_and_leaves_the_index() -> None:
    async with semantic_world() as world:
        for selector in (
            Selector(chat_id="chat-1"),
            Selector(message_id="chat-1-1"),
            Selector(user="ann"),
            Selector(model="smol"),
            Selector(all=True),
        ):
            before = await look(world, query(ASKED))
            await keep(world, query(ASKED), stamp=before.stamp, source_message_id="chat-1-1")
            found = await look(world, query(ALIKE))
            assert found.verdict is Verdict.SEMANTIC, selector
            count = await world.cache.invalidate("acme", selector, dry_run=True, seconds=SECONDS)
            assert count == 1
            assert (await look(world, query(ALIKE))).verdict is Verdict.SEMANTIC
            await world.cache.invalidate("acme", selector, dry_run=False, seconds=SECONDS)
            assert (await look(world, query(ALIKE))).entry is None
            assert await world.index.count() == 0
            world.clock.advance(90_000)  # barriers and raised bars fall


async def test_an_expired_entry_is_served_to_nobody_and_hits_do_not_renew_it() -> None:
    async with semantic_world() as world:
        await keep(world, query(ASKED))
        world.clock.advance(999)
        assert (await look(world, query(ALIKE))).verdict is Verdict.SEMANTIC
        world.clock.advance(2)
        assert (await look(world, query(ALIKE))).entry is None


async def test_a_rated_down_answer_goes_and_the_bar_is_higher_around_it() -> None:
    async with semantic_world() as world:
        await keep(world, query(ASKED), source_message_id="bad")
        await world.cache.invalidate(
            "acme", Selector(message_id="bad"), dry_run=False, seconds=SECONDS
        )
        fresh = await look(world, query(ASKED))
        assert fresh.entry is None
        # A new answer is given for the same words, and no longer for other ones.
        await keep(world, query(ASKED), "Better.", source_message_id="m2", stamp=fresh.stamp)
        assert (await look(world, query(ASKED))).verdict is Verdict.EXACT
        assert (await look(world, query("how can I reset my password"))).entry is not None
        refused = await look(world, query(ALIKE))
        assert (refused.entry, refused.reason) == (None, "rated_down_nearby")
        # Elsewhere, and for others, nothing has changed; after a day not here either.
        far = query("Which herons breed in Norway?")
        await keep(world, far, source_message_id="m3")
        assert (await look(world, query("What herons breed in Norway?"))).entry is not None
        bob = query(ASKED, user="bob")
        await keep(world, bob, source_message_id="m4")
        assert (await look(world, query(ALIKE, user="bob"))).entry is not None
        world.clock.advance(90_000)
        await keep(world, query(ASKED), source_message_id="m5", stamp=fresh.stamp)
        assert (await look(world, query(ALIKE))).verdict is Verdict.SEMANTIC


async def test_hits_of_both_tiers_count_for_an_entrys_worth() -> None:
    async with semantic_world() as world:
        await keep(world, query(ASKED))
        await look(world, query(ASKED))
        await look(world, query(ALIKE))
        credited: list[Sequence[Credit]] = []

        async def note(credits: Sequence[Credit]) -> None:
            credited.append(credits)

        world.store.credit = note  # type: ignore[method-assign]
        await world.cache.credit(seconds=1.0)
        await world.cache.credit(seconds=1.0)
        [[credit]] = credited
        assert credit.hits == 2
        assert credit.entry_id == entry_key(query(ASKED)).entry_id


async def test_nothing_is_embedded_where_there_is_nothing_to_compare_with() -> None:
    async with semantic_world() as world:
        before = world.model.texts
        found = await look(world, query(ASKED))
        assert (found.reason, world.model.texts - before) == ("not_found", 0)
        await keep(world, query(ASKED))
        kept = world.model.texts - before
        assert (await look(world, query(ASKED, context_fingerprint=b"c" * 32))).entry is None
        assert world.model.texts - before == kept, "another conversation's space is empty"
        assert (await look(world, query(ALIKE))).verdict is Verdict.SEMANTIC
        assert world.model.texts - before == kept + 1


class Away:
    """An index that is not there."""

    async def holds(self, *_: object) -> bool:
        raise IndexUnavailable("index_unavailable")

    async def nearest(self, *_: object) -> object:
        raise IndexUnavailable("index_unavailable")


async def test_every_failure_is_a_miss_with_its_reason() -> None:
    async with semantic_world() as world:
        await keep(world, query(ASKED))
        tier = world.cache._tier
        assert tier is not None
        world.model.fault = RuntimeError("broken")
        failed = await look(world, query("password reset the way"))
        assert (failed.entry, failed.reason) == (None, "embedding_failed")
        stored = await world.cache.store(offer(query("something else")), seconds=SECONDS)
        assert stored.stored, "the exact tier goes on"
        assert (await look(world, query("something else"))).verdict is Verdict.EXACT
        world.model.fault = None

        async def away(*_: object) -> object:
            raise StoreUnavailable("gone")

        recall, world.store.recall = world.store.recall, away  # type: ignore[method-assign,assignment]
        assert (await look(world, query(ALIKE))).reason == "store_unavailable"
        world.store.recall = recall  # type: ignore[method-assign]
        index, tier._index = tier._index, Away()  # type: ignore[assignment]
        assert (await look(world, query(ALIKE))).reason == "index_unavailable"
        tier._index = index
        await world.embedder.stop()
        assert (await look(world, query("one more new text"))).reason == "embedding_closed"


async def test_damaged_or_foreign_vectors_are_dismissed_and_counted() -> None:
    async with semantic_world() as world:
        await keep(world, query(ASKED))
        state = world.store._tenants[TENANT]  # type: ignore[attr-defined]
        held = state.entries[entry_key(query(ASKED)).entry_id]
        whole = held.beside

        def dismissed(reason: str) -> float:
            name = "parley_cache_dismissed_nominees_total"
            return REGISTRY.get_sample_value(name, {"reason": reason}) or 0.0

        before = dismissed("gone")
        held.beside = whole[:-1]
        assert (await look(world, query(ALIKE))).reason == "candidates_gone"
        assert dismissed("gone") == before + 1
        held.beside = whole
        assert (await look(world, query(ALIKE))).reason == "not_found", "forgotten meanwhile"
        assert (await look(world, query(ASKED))).verdict is Verdict.EXACT


async def test_what_is_far_is_a_miss_without_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    async with semantic_world(least_cosine=0.5) as world:
        await keep(world, query(ASKED), "Like this.")
        assert (await look(world, query(ALIKE))).verdict is Verdict.SEMANTIC
        tier = world.cache._tier
        assert tier is not None

        def compared(*_: object) -> object:
            raise AssertionError("it was compared")

        monkeypatch.setattr(tier._check, "choose", compared)
        far = await look(world, query("Which herons breed in Norway?"))
        assert (far.verdict, far.reason) == (Verdict.MISS, "not_similar")
        assert far.similarity is not None
        assert far.similarity < 0.5


async def test_what_is_far_by_far_is_not_read_again_and_what_may_be_near_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with semantic_world(least_cosine=0.5) as world:
        await keep(world, query(ASKED))
        read: list[str] = []
        recall, nearest = world.store.recall, world.index.nearest

        async def recalling(tenant: str, ids: Sequence[str]) -> Sequence[Recalled | None]:
            read.extend(ids)
            return await recall(tenant, ids)

        monkeypatch.setattr(world.store, "recall", recalling)
        assert (await look(world, query("Which herons breed in Norway?"))).reason == "not_similar"
        assert read == []

        async def misstated(*args: Any) -> Sequence[Nominee]:
            # As an index of few bits may.
            return [dataclasses.replace(one, similarity=0.46) for one in await nearest(*args)]

        monkeypatch.setattr(world.index, "nearest", misstated)
        assert (await look(world, query(ALIKE))).verdict is Verdict.SEMANTIC
        assert len(read) == 1


async def test_a_vector_of_other_dimensions_is_dismissed_and_breaks_nothing() -> None:
    async with semantic_world() as world:
        key, entry, sources = entry_for(world.clock, query(ASKED))
        space = space_name(query(ASKED), "words:1")
        short = np.zeros(7, dtype="<f4")
        short[0] = 1.0
        await world.store.put(key, entry, sources, None, Meaning(space, ASKED, short.tobytes()))
        [vector] = world.model.embed([ASKED])
        await world.index.add(Item(Place(TENANT, space, key.entry_id), vector))
        assert (await look(world, query(ALIKE))).reason == "candidates_gone"
        assert (await look(world, query(ASKED))).verdict is Verdict.EXACT


async def test_vectors_of_two_models_are_never_compared() -> None:
    async with semantic_world() as old:
        await keep(old, query(ASKED))
        async with semantic_world(store=old.store, model=WordModel("words:2")) as new:
            [vector] = new.model.embed([ASKED])
            place = Place(
                TENANT, space_name(query(ALIKE), "words:2"), entry_key(query(ASKED)).entry_id
            )
            await new.index.add(Item(place, vector))
            assert (await look(new, query(ALIKE))).reason == "candidates_gone"


@pytest.mark.parametrize(
    "odd",
    [
        "🐦‍⬛" * 40,
        "怎么重置密码？",
        "كيف أعيد تعيين كلمة المرور؟",
        "x" * 100_000,
        "?",
        "\u200b?",
    ],
    ids=["emoji", "chinese", "arabic", "100 kB", "mark", "zero-width"],
)
async def test_odd_questions_are_stored_and_found_or_missed_never_an_error(odd: str) -> None:
    async with semantic_world() as world:
        await keep(world, query(ASKED))
        await keep(world, query(odd), "Odd.")
        found = await look(world, query(odd))
        assert found.entry is not None
        assert found.entry.answer == "Odd."
        near = await look(world, query(odd + " indeed not"))
        assert near.verdict in (Verdict.MISS, Verdict.SEMANTIC)
        assert near.entry is None or near.entry.answer == "Odd."


async def test_many_at_once_share_batches_and_all_are_answered() -> None:
    async with semantic_world() as world:
        await keep(world, query(ASKED))
        found = await asyncio.gather(
            *(look(world, query(f"way to reset a password{'!' * n}")) for n in range(60))
        )
        assert all(one.reason not in ("semantic_timeout",) for one in found)
        assert np.mean([one.entry is not None for one in found]) > 0.9
