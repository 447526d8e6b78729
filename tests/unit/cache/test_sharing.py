"""Answers shared between users: common questions only, and nobody's who was flagged."""

from __future__ import annotations

import pytest

from parley_cache.cache import LeaseWish, Lookup, Verdict
from parley_cache.model import Query, Scope, Selector
from support.cache_store import query
from support.meaning import World, offer, semantic_world

ASKED = "How does a heron fish?"
ALIKE = "How do herons fish?"
SECONDS = 5.0


def common(question: str = ASKED, **changes: object) -> Query:
    return query(question, scope=Scope.GLOBAL, user="", **changes)


async def look(
    world: World, user: str, question: str = ASKED, wish: LeaseWish | None = None
) -> Lookup:
    await world.writer.settled()
    return await world.cache.lookup(
        common(question), seconds=SECONDS, semantic=True, user=user, wish=wish
    )


async def keep(world: World, user: str, question: str = ASKED, **changes: object) -> str:
    made = offer(common(question), f"As {user} was told.", source_user=user, **changes)
    stored = await world.cache.store(made, seconds=SECONDS)
    await world.writer.settled()
    return "" if stored.stored else stored.reason


async def test_an_answer_is_given_to_others_once_three_different_users_asked() -> None:
    async with semantic_world() as world:
        assert (await look(world, "ann")).reason == "not_found"
        assert not await keep(world, "ann")
        own = await look(world, "ann")
        assert own.verdict is Verdict.EXACT, "one's own is one's own"
        for _ in range(3):
            second = await look(world, "bob")
            assert (second.entry, second.reason) == (None, "too_few_askers")
        third = await look(world, "eve")
        assert third.verdict is Verdict.EXACT
        assert third.entry is not None
        assert third.entry.answer == "As ann was told."
        assert (await look(world, "bob")).verdict is Verdict.EXACT


async def test_by_meaning_it_takes_as_many() -> None:
    async with semantic_world() as world:
        await look(world, "ann")
        await keep(world, "ann")
        assert (await look(world, "ann", ALIKE)).verdict is Verdict.SEMANTIC
        assert (await look(world, "bob", ALIKE)).reason == "too_few_askers"
        assert (await look(world, "eve", ALIKE)).verdict is Verdict.SEMANTIC


async def test_who_waited_is_not_given_it_either() -> None:
    async with semantic_world() as world:
        wish = LeaseWish(0.0, 0.0, seeded=False)
        await look(world, "ann")
        await keep(world, "ann")
        missed = await look(world, "bob", wish=wish)
        assert (missed.entry, missed.reason) == (None, "too_few_askers")


async def test_whose_shared_answer_was_rated_down_shares_no_more() -> None:
    async with semantic_world() as world:
        for user in ("ann", "bob", "eve"):
            await look(world, user)
            await look(world, user, "Where do storks nest?")
        assert not await keep(world, "ann", source_message_id="bad")
        assert not await keep(world, "ann", "Where do storks nest?", source_message_id="good")
        assert (await look(world, "eve", "Where do storks nest?")).entry is not None
        await world.cache.invalidate(
            "acme", Selector(message_id="bad"), dry_run=False, seconds=SECONDS
        )
        refused = await look(world, "eve", "Where do storks nest?")
        assert (refused.entry, refused.reason) == (None, "user_flagged")
        assert (await look(world, "ann", "Where do storks nest?")).entry is not None
        assert await keep(world, "ann", "What is a stork?") == "user_flagged"
        assert not await keep(world, "bob", "What is a stork?")
        # One's own cache is not touched by it.
        private = await world.cache.store(offer(query("What is a stork?")), seconds=SECONDS)
        assert private.stored


async def test_private_answers_flag_nobody() -> None:
    async with semantic_world() as world:
        made = offer(query(ASKED), source_message_id="mine")
        assert (await world.cache.store(made, seconds=SECONDS)).stored
        await world.cache.invalidate(
            "acme", Selector(message_id="mine"), dry_run=False, seconds=SECONDS
        )
        assert not await keep(world, "ann", "What is a stork?")


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("What should I take for my diagnosis?", "personal_data"),
        ("What is the weather today?", "time_dependent"),
    ],
)
async def test_what_is_personal_or_ages_is_neither_looked_up_nor_kept(
    question: str, reason: str
) -> None:
    async with semantic_world() as world:
        assert (await look(world, "ann", question)).reason == reason
        assert await keep(world, "ann", question) == reason
        later = common(context_messages=2)
        found = await world.cache.lookup(later, seconds=SECONDS, user="ann")
        assert found.reason == "not_first_turn"
