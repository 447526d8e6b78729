"""How long an answer lives follows from its question, and errs towards a shorter time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parley_cache.config import CacheSettings
from parley_cache.keys import entry_key
from parley_cache.shelf_life import Expiry, ShelfLife, shelf_life_of
from support.cache_store import query
from support.meaning import World, offer, semantic_world


@pytest.mark.parametrize(
    "question",
    [
        "What is the price of a litre of milk in France?",
        "How much does a visa for India cost?",
        "Who is the president of Brazil?",
        "Which version of Python does Django support?",
        "What is the population of Norway?",
        "What is the best laptop for students?",
        "Is it legal to fly a drone in a park?",
        "How do I install Kubernetes on Debian?",
        "Which elections are held in 2027?",
        "Please define the minimum wage",
        "Translate 'the price is high' to German",
        "Wer ist der Bundeskanzler?",
        "¿Cuánto cuesta un billete?",
    ],
)
def test_what_changes_slowly_is_recognised(question: str) -> None:
    assert shelf_life_of(query(question)) is ShelfLife.SLOWLY_CHANGING


@pytest.mark.parametrize(
    "question",
    [
        "What is a heron?",
        "Define entropy.",
        "Translate 'good morning' to Dutch",
        "What does serendipity mean?",
        "What is the capital of Mongolia?",
        "What is 17 * 23?",
        "Could you explain why ice floats?",
        "How many metres are there in a mile?",
        "How does a heat pump work?",
        "Why is the sky blue?",
        "Who wrote Middlemarch?",
        "Was bedeutet Weltschmerz?",
    ],
)
def test_what_does_not_change_is_recognised(question: str) -> None:
    assert shelf_life_of(query(question)) is ShelfLife.TIMELESS
    later = query(question, context_messages=2)
    assert shelf_life_of(later) is ShelfLife.ORDINARY, "what it means hangs on what was said"


@pytest.mark.parametrize(
    "question",
    [
        "What is our refund policy?",
        "What does this mean?",
        "Explain why my code fails",
        "How can I reset a password?",
        "Write a poem about rain",
        "你好吗",
        "",
        "?" * 100_000,
    ],
)
def test_all_else_is_ordinary(question: str) -> None:
    assert shelf_life_of(query(question)) is ShelfLife.ORDINARY


@given(st.text(max_size=2000))
def test_no_text_makes_the_patterns_fail(text: str) -> None:
    assert shelf_life_of(query(text)) in ShelfLife


def test_classes_keep_their_order_whatever_is_set() -> None:
    odd = Expiry(60.0, 0.0, slowly_changing=3600.0, timeless=1.0)
    assert [odd.draw(life) for life in ShelfLife] == [60.0, 60.0, 60.0]
    plain = Expiry(100.0, 0.1, slowly_changing=10.0, timeless=1000.0)
    for life, seconds in zip(ShelfLife, (10.0, 100.0, 1000.0), strict=True):
        drawn = {plain.draw(life) for _ in range(100)}
        assert all(0.9 * seconds <= one <= 1.1 * seconds for one in drawn)
        assert len(drawn) > 50


def test_settings_are_bounded_and_say_the_longest() -> None:
    settings = CacheSettings(redis_url="redis://x", ttl_seconds=10.0)  # type: ignore[arg-type]
    assert settings.expiry.seconds(ShelfLife.SLOWLY_CHANGING) == 10.0
    assert settings.longest_ttl_seconds == settings.ttl_timeless_seconds
    for name in ("ttl_changing_seconds", "ttl_timeless_seconds"):
        for wrong in (0, -1, 31 * 86_400):
            with pytest.raises(ValidationError):
                CacheSettings(redis_url="redis://x", **{name: wrong})  # type: ignore[arg-type]


async def test_a_stored_answer_expires_by_its_class_and_hits_do_not_renew_it() -> None:
    expiry = Expiry(1000.0, 0.0, slowly_changing=100.0, timeless=10_000.0)
    async with semantic_world(expiry=expiry) as world:
        changing, plain, timeless = (
            query("Who is the mayor of Ghent?"),
            query("How can I reset a password?"),
            query("What is a heron?"),
        )
        for one in (changing, plain, timeless):
            assert (await world.cache.store(offer(one), seconds=5.0)).stored

        assert await _served(world) == {"mayor", "reset", "heron"}
        world.clock.advance(99)
        assert await _served(world) == {"mayor", "reset", "heron"}
        world.clock.advance(2)
        assert await _served(world) == {"reset", "heron"}
        world.clock.advance(900)
        assert await _served(world) == {"heron"}
        world.clock.advance(9_000)
        assert await _served(world) == set()


async def _served(world: World) -> set[str]:
    questions = {
        "mayor": "Who is the mayor of Ghent?",
        "reset": "How can I reset a password?",
        "heron": "What is a heron?",
    }
    found = {name: await world.store.get(entry_key(query(q))) for name, q in questions.items()}
    return {name for name, one in found.items() if one.entry is not None}
