"""Prompts: what fits is sent, the oldest whole turns go first, each message is counted once."""

import asyncio
import contextlib
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parley_kit.errors import ServiceError
from parley_session.clock import Clock
from parley_session.context import builder as building
from parley_session.context.builder import ContextBuilder
from parley_session.context.prompt import Prompt
from parley_session.domain.model import HistoryStrategy, Message, Role
from parley_session.store.memory.store import MemoryStore
from support.session_data import make_chat, make_run
from support.session_fakes import FakeFleet, model, tokens_of
from support.session_world import options

OVERHEAD = 3
CHAT = make_chat(id="01a1fdcb-0000-7000-8000-000000000000")


def message(seq: int, words: int) -> Message:
    """A message of so many words."""
    return Message(
        chat=CHAT.id,
        tenant="acme",
        user="alice",
        seq=seq,
        role=Role.ASSISTANT if seq % 2 else Role.USER,
        content=" ".join(["word"] * words),
        created_at=CHAT.created_at,
        run="",
    )


async def build(
    words: list[int], window: int, system: str = "be brief", question: int = 1, **given: Any
) -> tuple[Prompt, FakeFleet, MemoryStore]:
    """Build the prompt of a question after messages of so many words."""
    store, fleet = MemoryStore(), FakeFleet()
    for seq, number in enumerate(words):
        await store.insert_message(message(seq, number))
    builder = ContextBuilder(store, fleet, Clock(), 5.0)
    prompt = await builder.build(
        model(context_length=window),
        system,
        message(len(words), question),
        options(**({"max_tokens": 10} | given)),
    )
    return prompt, fleet, store


def cost(prompt: Prompt) -> int:
    """Tokens of a prompt, by the fake tokenizer."""
    fixed = OVERHEAD + (tokens_of(prompt.system) if prompt.system else 0)
    return fixed + sum(tokens_of(one.content) for one in prompt.messages)


turns = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=90)


@settings(deadline=None)
@given(
    turns=turns,
    window=st.integers(40, 600),
    at_most=st.none() | st.integers(0, 90),
    system=st.sampled_from(["", "be brief"]),
)
def test_truncate_keeps_the_newest_whole_turns_that_fit(
    turns: list[tuple[int, int]], window: int, at_most: int | None, system: str
) -> None:
    history = [words for turn in turns for words in turn]
    prompt, *_ = asyncio.run(build(history, window, system, history_turns=at_most))
    assert cost(prompt) + 10 <= window
    kept = prompt.messages[:-1]
    # Whole turns, the newest ones, without a gap, the question last.
    assert len(kept) % 2 == 0
    assert [m.seq for m in prompt.messages] == list(
        range(len(history) - len(kept), len(history) + 1)
    )
    assert prompt.info.messages_included == len(prompt.messages)
    assert prompt.info.messages_dropped == len(history) - len(kept)
    if at_most is not None:
        assert len(kept) <= 2 * at_most
    # One more turn would not have fitted.
    left = len(turns) - len(kept) // 2
    if left and (at_most is None or len(kept) < 2 * at_most):
        more = sum(1 + words for words in turns[left - 1])
        assert cost(prompt) + more + 10 > window


@settings(deadline=None)
@given(turns=turns, window=st.integers(40, 600))
def test_full_sends_all_or_refuses(turns: list[tuple[int, int]], window: int) -> None:
    history = [words for turn in turns for words in turn]
    needed = OVERHEAD + 3 + 2 + sum(1 + words for words in history)
    if needed + 10 > window:
        with pytest.raises(ServiceError, match="context_too_long"):
            asyncio.run(build(history, window, history=HistoryStrategy.FULL))
        return
    prompt, *_ = asyncio.run(build(history, window, history=HistoryStrategy.FULL))
    assert len(prompt.messages) == len(history) + 1
    assert cost(prompt) == needed


async def test_a_question_that_does_not_fit_is_refused_with_the_counts() -> None:
    with pytest.raises(ServiceError) as refused:
        await build([], 100, question=95)
    assert refused.value.code == "context_too_long"
    assert refused.value.metadata == {
        "prompt_tokens": "102",
        "context_length": "100",
        "max_tokens": "10",
    }


async def test_counts_that_are_stored_are_not_asked_for_again() -> None:
    store, fleet = MemoryStore(), FakeFleet()
    for seq in range(4):
        await store.insert_message(message(seq, 2))
    builder = ContextBuilder(store, fleet, Clock(), 5.0)
    small, given = model(context_length=100), options(max_tokens=10)
    prompt = await builder.build(small, "be brief", message(4, 1), given)
    # The system prompt, four messages, the question.
    assert fleet.counted == [6]
    for counted in prompt.counted:
        await store.set_tokens(counted.message_id, counted.tokenizer_id, counted.tokens)
    again = await builder.build(small, "be brief", message(4, 1), given)
    assert fleet.counted == [6, 2]
    assert again.messages[:-1] == tuple(
        replace(m, tokens={"fake-tokenizer": 3}) for m in prompt.messages[:-1]
    )


async def test_what_fits_whatever_its_count_is_not_counted() -> None:
    store, fleet = MemoryStore(), FakeFleet()
    for seq in range(2):
        await store.insert_message(message(seq, 2))
    builder = ContextBuilder(store, fleet, Clock(), 5.0)
    large, given = model(context_length=8000), options(max_tokens=10)
    first = await builder.build(large, "be brief", message(2, 1), given)
    assert fleet.counted == [4], "what the template adds is not known yet"
    again = await builder.build(large, "be brief", message(2, 1), given)
    assert fleet.counted == [4]
    assert again.counted == ()
    assert [m.content for m in again.messages] == [m.content for m in first.messages]
    assert again.info == first.info
    # Without a system prompt a template may add one of its own; another model has another one.
    await builder.build(large, "", message(2, 1), given)
    await builder.build(replace(large, revision="2"), "be brief", message(2, 1), given)
    assert fleet.counted == [4, 3, 4]
    await builder.build(large, "be brief", message(2, 200), given)
    assert fleet.counted == [4, 3, 4, 4], "it might not fit"


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text(min_size=1), st.integers(200, 3000))
def test_a_prompt_that_was_not_counted_fits(system: str, text: str, window: int) -> None:
    # A tokenizer as bad as any: a token for each byte of the longest normal form.
    def most(content: str) -> int:
        return len(unicodedata.normalize("NFKC", content).encode()) + 5

    fleet = FakeFleet()
    builder = ContextBuilder(MemoryStore(), fleet, Clock(), 5.0)

    async def ask(content: str) -> None:
        question = replace(message(0, 1), content=content)
        given = options(max_tokens=10)
        await builder.build(model(context_length=window), system, question, given)

    with contextlib.suppress(ServiceError):
        asyncio.run(ask("x"))
        asyncio.run(ask(text))
        if len(fleet.counted) == 1:
            cost = OVERHEAD + most(text) + (most(system) if system else 0)
            assert cost + 10 <= window


async def test_a_tokenizer_that_changes_counts_anew() -> None:
    store, fleet = MemoryStore(), FakeFleet()
    await store.insert_message(replace(message(0, 2), tokens={"another": 99}))
    await store.insert_message(replace(message(1, 2), tokens={"another": 99}))
    builder = ContextBuilder(store, fleet, Clock(), 5.0)
    await builder.build(model(context_length=100), "", message(2, 1), options(max_tokens=10))
    assert fleet.counted == [3]


async def test_a_frozen_prompt_is_built_again_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "PAGE_TURNS", 2)
    prompt, fleet, store = await build([2] * 20, 60)
    await store.insert_message(prompt.messages[-1])
    run = replace(make_run(), chat=CHAT.id, tenant="acme", user="alice")
    run = replace(run, request=replace(run.request, options=options(max_tokens=10)))
    builder = ContextBuilder(store, fleet, Clock(), 5.0)
    again = await builder.rebuild(run, prompt.frozen())
    assert again == replace(prompt, counted=())
    await store.delete_messages(CHAT.id, 30)
    assert await builder.rebuild(run, prompt.frozen()) is None


async def test_a_prompt_has_no_more_messages_than_an_engine_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(building, "MAX_PROMPT_MESSAGES", 7)
    prompt, *_ = await build([1] * 20, 1000)
    assert len(prompt.messages) == 7
    with pytest.raises(ServiceError) as refused:
        await build([1] * 20, 1000, history=HistoryStrategy.FULL)
    assert refused.value.code == "context_too_long"
