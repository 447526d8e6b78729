"""Summaries: made once an answer is settled, extended, part of the prompt, never in the way."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from parley.inference.v1 import inference_pb2 as pb

from parley_kit.errors import ServiceError
from parley_session.answers.keys import query_of
from parley_session.context import summarizing
from parley_session.domain.model import HistoryStrategy, RunState
from parley_session.fleet.base import Draw
from parley_session.runs.asking import Completion
from parley_session.runs.live import Ended
from support.poll import until
from support.session_fakes import model
from support.session_world import Replica, World, asking

SUMMARIZE = HistoryStrategy.SUMMARIZE
LONG = "word " * 60
HEAD = "be brief\n\nSummary of the conversation so far:\n"


def next_turn(first: Completion | None, message: str = LONG, **given: Any) -> Completion:
    """A turn in the chat of another, which asks for summaries."""
    given = {"history": SUMMARIZE, "max_tokens": 50, "cache": None, **given}
    return asking(message, chat=first.chat_id if first else None, **given)


async def _talk(world: World, replica: Replica, turns: int) -> tuple[Completion, list[Ended]]:
    """A chat of long messages in a small window."""
    world.fleet.served = {"sim": model(context_length=600)}
    first = next_turn(None, f"0 {LONG}")
    ended = [(await replica.complete(first))[1]]
    await replica.quiet()
    for number in range(1, turns):
        ended.append((await replica.complete(next_turn(first, f"{number} {LONG}")))[1])
        await replica.quiet()
    return first, ended


def summaries(world: World) -> list[str]:
    """What the engine was asked to fold."""
    return [
        draw.request.messages[-1].content
        for draw in world.fleet.draws
        if draw.request_id.endswith(":summary")
    ]


async def test_a_history_that_does_not_fit_is_folded_after_the_answer_and_used_next(
    world: World,
) -> None:
    replica = world.replica()
    first, ended = await _talk(world, replica, 14)
    chat = await world.chat(first.chat_id)
    assert chat.summary is not None
    assert chat.summary.text == world.fleet.text
    assert 0 < chat.summary.until_seq <= chat.next_seq - 4
    assert chat.summary.tokens
    told = [one.run.context.summary_used for one in ended if one.run.context]
    assert not told[0]
    assert told[-1]
    last = [d for d in world.fleet.draws if not d.request_id.endswith(":summary")][-1]
    assert last.request.messages[0].content == HEAD + world.fleet.text
    # Nothing is dropped that the summary does not hold.
    run = ended[-1].run
    assert run.prompt is None or run.prompt.summary == world.fleet.text
    assert run.context is not None
    assert run.context.messages_included + run.context.messages_dropped == run.seq + 1


async def test_a_summary_is_extended_not_made_anew(world: World) -> None:
    first, _ = await _talk(world, world.replica(), 24)
    folds = summaries(world)
    assert len(folds) >= 2
    assert folds[0].startswith("Said:\n")
    assert all(fold.startswith("Summary so far:\n") for fold in folds[1:])
    # Each message is folded once.
    for number in range(24):
        assert sum(f"User: {number} word" in fold for fold in folds) <= 1
    chat = await world.chat(first.chat_id)
    assert chat.summary is not None
    folded = sum(f"User: {n} word" in fold for n in range(24) for fold in folds)
    assert chat.summary.until_seq == 2 * folded


@pytest.mark.parametrize("failure", ["engine", "store", "nothing"])
async def test_an_answer_is_not_lost_when_its_summary_fails(
    world: World, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    replica = world.replica()
    original = world.fleet.draw

    async def failing(draw: Draw) -> AsyncIterator[pb.GenerateResponse]:
        if draw.request_id.endswith(":summary"):
            if failure == "engine":
                raise ServiceError(None, "engine_lost", "gone")  # type: ignore[arg-type]
            if failure == "nothing":
                return
            world.store.away = True
        async for event in original(draw):
            yield event

    monkeypatch.setattr(world.fleet, "draw", failing)
    world.fleet.served = {"sim": model(context_length=600)}
    first = next_turn(None, f"0 {LONG}")
    await replica.complete(first)
    for number in range(1, 14):
        text, ended = await replica.complete(next_turn(first, f"{number} {LONG}"))
        await replica.quiet()
        world.store.away = False
        assert text == world.fleet.text
        assert ended.run.state is RunState.COMPLETED
    assert (await world.chat(first.chat_id)).summary is None
    assert ended.run.context is not None
    assert not ended.run.context.summary_used
    assert ended.run.context.messages_dropped > 0


async def test_the_caller_has_its_answer_before_the_summary_is_begun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = world.replica()
    first, _ = await _talk(world, replica, 2)
    monkeypatch.setattr(summarizing, "SHARE", 0.0)
    monkeypatch.setattr(summarizing, "KEPT_TURNS", 1)
    held = world.fleet.draw

    async def stuck(draw: Draw) -> AsyncIterator[pb.GenerateResponse]:
        if draw.request_id.endswith(":summary"):
            await world.fleet.release.wait()
        async for event in held(draw):
            yield event

    monkeypatch.setattr(world.fleet, "draw", stuck)
    text, _ = await replica.complete(next_turn(first))
    assert text == world.fleet.text
    assert len(replica.session.live_runs) == 1
    # The chat is free meanwhile.
    text, _ = await replica.complete(next_turn(first, "And on?"))
    assert text == world.fleet.text
    world.fleet.release.set()
    await replica.quiet()
    await until(lambda: True)
    assert (await world.chat(first.chat_id)).summary is not None


async def test_other_strategies_and_deleted_chats_have_no_summary(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summarizing, "SHARE", 0.0)
    replica = world.replica()
    first = asking("One")
    await replica.complete(first)
    for _ in range(5):
        await replica.complete(asking("More", chat=first.chat_id))
    await replica.quiet()
    assert summaries(world) == []
    assert (await world.chat(first.chat_id)).summary is None


async def test_the_summary_is_part_of_the_contexts_fingerprint(world: World) -> None:
    replica = world.replica()
    _, ended = await _talk(world, replica, 14)
    run = await world.run(ended[-1].run.id)
    assert run.prompt is not None
    context = replica.session.servicer._starter._acceptance._context
    prompt = await context.rebuild(run, run.prompt)
    assert prompt is not None
    assert prompt.summary
    assert prompt.info.summary_used
    from dataclasses import replace

    other = replace(prompt, summary="something else")
    assert query_of(run, prompt).context_fingerprint != query_of(run, other).context_fingerprint
    assert query_of(run, prompt).system_digest == query_of(run, other).system_digest


async def test_a_summary_that_does_not_fit_is_left_out(world: World) -> None:
    replica = world.replica()
    first, _ = await _talk(world, replica, 14)
    chat = await world.chat(first.chat_id)
    assert chat.summary is not None
    from dataclasses import replace

    huge = replace(chat.summary, text="word " * 700)
    assert await world.store.set_summary(chat.id, chat.summary.until_seq, huge)
    text, ended = await replica.complete(next_turn(first, "Short."))
    assert text == world.fleet.text
    assert ended.run.context is not None
    assert not ended.run.context.summary_used
