"""Messages that wait in a busy chat: in order, bounded, and never forgotten."""

import asyncio
from typing import Any

import pytest

from parley_kit.errors import ServiceError
from parley_session.domain.model import FinishReason, RunState, WhenBusy
from parley_session.runs.asking import Completion
from parley_session.runs.live import Ended, Queued
from support.poll import until
from support.session_mortal import deaths
from support.session_world import ALICE, Replica, World, asking, world

QUEUE = WhenBusy.QUEUE


def behind(first: Completion, message: str) -> Completion:
    """A message that waits for its turn in the chat of another."""
    return asking(message, chat=first.chat_id, when_busy=QUEUE)


async def _busy(world: World, replica: Replica) -> Completion:
    """A chat whose first answer stops in the middle."""
    first = asking("One")
    world.fleet.hold_at = 2
    await replica.start(first)
    await until(lambda: world.fleet.drawing)
    return first


async def test_messages_that_wait_are_answered_in_order(world: World) -> None:
    replica, other = world.replica(), world.replica()
    first = await _busy(world, replica)
    waiting = [behind(first, f"Number {n}") for n in range(2, 9)]
    for number, asked in enumerate(waiting):
        accepted = await (replica, other)[number % 2].start(asked)
        assert accepted.live is None
        assert (await world.run(asked.run_id)).state is RunState.QUEUED
    assert len(world.fleet.draws) == 1
    reading = [asyncio.create_task(other.read(asked.run_id)) for asked in waiting]
    world.fleet.release.set()
    for text, ended in await asyncio.gather(*reading):
        assert text == world.fleet.text
        assert ended.run.state is RunState.COMPLETED
    messages = await world.messages(first.chat_id)
    assert [m.content for m in messages[::2]] == ["One", *(asked.message for asked in waiting)]
    # Each prompt held all earlier turns, answers included.
    assert [len(draw.request.messages) for draw in world.fleet.draws] == [
        1 + 2 * turn + 1 for turn in range(8)
    ]
    chat = await world.chat(first.chat_id)
    assert chat.pending == ()
    assert chat.message_count == 16


async def test_the_ninth_is_refused_and_leaves_nothing(world: World) -> None:
    replica = world.replica()
    first = await _busy(world, replica)
    for number in range(7):
        await replica.start(behind(first, f"{number}"))
    ninth = behind(first, "too many")
    with pytest.raises(ServiceError) as refused:
        await replica.start(ninth)
    assert refused.value.code == "queue_full"
    assert refused.value.retry_after is not None
    assert await world.store.get_run(ALICE, ninth.run_id) is None
    assert len((await world.chat(first.chat_id)).pending) == 8


async def test_one_that_would_not_wait_is_refused_as_before(world: World) -> None:
    replica = world.replica()
    first = await _busy(world, replica)
    await replica.start(behind(first, "Two"))
    with pytest.raises(ServiceError) as refused:
        await replica.start(asking("Three", chat=first.chat_id))
    assert refused.value.code == "run_in_progress"


async def test_a_message_that_alone_is_too_long_is_refused_before_it_waits(world: World) -> None:
    replica = world.replica()
    first = await _busy(world, replica)
    with pytest.raises(ServiceError) as refused:
        await replica.start(behind(first, "word " * 1000))
    assert refused.value.code == "context_too_long"
    assert len((await world.chat(first.chat_id)).pending) == 1


async def test_the_place_is_told_as_it_changes(world: World) -> None:
    replica, other = world.replica(), world.replica()
    first = await _busy(world, replica)
    second, third = behind(first, "Two"), behind(first, "Three")
    await replica.start(second)
    await replica.start(third)
    seen: list[object] = []

    async def read() -> None:
        async for event in other.follow(third.run_id):
            seen.append(event)  # noqa: PERF401 - looked at while it grows

    reading = asyncio.create_task(read())
    await until(lambda: seen)
    assert seen == [Queued(2)]
    cancelled = await other.cancel(first.run_id, wait=20)
    assert cancelled.state is RunState.CANCELLED
    await until(lambda: len(seen) == 2)
    assert seen[1] == Queued(1)
    world.fleet.release.set()
    async with asyncio.timeout(5):
        await reading
    assert isinstance(seen[-1], Ended)


async def test_a_repeated_request_finds_its_waiting_turn_and_does_not_start_it(
    world: World,
) -> None:
    replica, other = world.replica(), world.replica()
    first = await _busy(world, replica)
    second = behind(first, "Two")
    await replica.start(second)
    again = await other.start(second)
    assert again.repeated
    assert again.live is None
    assert len(other.session.live_runs) == 0
    assert len((await world.chat(first.chat_id)).pending) == 2


async def test_a_turn_accepted_as_the_one_before_is_settled_is_started(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, other = world.replica(), world.replica()
    first = await _busy(world, replica)
    original = world.store.accept_turn

    async def slowly(*args: Any) -> bool:
        world.fleet.release.set()
        await replica.quiet()
        return await original(*args)

    monkeypatch.setattr(world.store, "accept_turn", slowly)
    second = behind(first, "Two")
    accepted = await other.start(second)
    assert accepted.live is not None
    text, _ = await other.read(second.run_id, live=accepted.live)
    assert text == world.fleet.text


async def test_a_cancelled_waiting_turn_ends_at_once_and_holds_nobody_up(world: World) -> None:
    replica, other = world.replica(), world.replica()
    first = await _busy(world, replica)
    second, third = behind(first, "Two"), behind(first, "Three")
    await replica.start(second)
    await replica.start(third)
    run = await other.cancel(second.run_id)
    assert run.state is RunState.CANCELLED
    assert run.finish_reason is FinishReason.CANCELLED
    assert len(world.fleet.draws) == 1
    world.fleet.release.set()
    await replica.read(third.run_id)
    chat = await world.chat(first.chat_id)
    assert chat.pending == ()
    assert chat.message_count == 6
    assert [m.content for m in (await world.messages(first.chat_id))[1::2]] == [
        world.fleet.text, "", world.fleet.text,
    ]  # fmt: skip


async def test_deleting_the_chat_ends_those_that_wait(world: World) -> None:
    replica, other = world.replica(), world.replica()
    first = await _busy(world, replica)
    second = behind(first, "Two")
    await replica.start(second)
    reading = asyncio.create_task(other.read(second.run_id))
    await until(lambda: other.session.live_runs._awaited)
    assert await other.delete(first.chat_id)
    with pytest.raises(ServiceError) as refused:
        await reading
    assert refused.value.code == "not_found"
    world.fleet.release.set()
    await replica.quiet()
    assert await world.messages(first.chat_id) == []
    assert await world.store.list_run_ids(first.chat_id) == []
    assert len(world.fleet.draws) == 1


async def test_a_waiting_turn_whose_time_is_over_ends_as_timed_out(world: World) -> None:
    replica = world.replica()
    first = await _busy(world, replica)
    second = asking("Two", chat=first.chat_id, when_busy=QUEUE, timeout_seconds=60)
    await replica.start(second)
    world.time.advance(90)
    world.fleet.release.set()
    _, ended = await replica.read(second.run_id)
    assert ended.run.error is not None
    assert ended.run.error.code == "timed_out"
    assert (await world.chat(first.chat_id)).pending == ()


async def test_dying_at_any_write_leaves_no_waiting_turn_unanswered() -> None:
    first = asking("One")
    turns = [first, behind(first, "Two"), behind(first, "Three")]

    async def scenario(world: World, replica: Replica) -> None:
        world.fleet.hold_at = 2
        healthy = world.replica()
        for asked in turns[1:]:
            # Accepted elsewhere, while the first is made by the one that will die.
            if asked is turns[1]:
                await replica.start(first)
                await until(lambda: world.fleet.drawing or replica.death.dead)
            if not replica.death.dead:
                await healthy.start(asked)
        world.fleet.release.set()
        await until(lambda: not len(replica.session.live_runs))
        await healthy.quiet()

    async with world() as undisturbed:
        probe = undisturbed.replica()
        await scenario(undisturbed, probe)
        writes = probe.death.writes
    # Once the others wait: what comes before is the matter of other tests.
    begun = [number for number, name in enumerate(writes, 1) if name == "append"][1]
    for where, death in deaths(writes):
        if death.at <= begun:
            continue
        async with world() as damaged:
            await scenario(damaged, damaged.replica(death))
            assert death.dead, where
            other = damaged.replica()
            for _ in turns:
                await damaged.repair(other)
            chat = await damaged.chat(first.chat_id)
            assert chat.pending == (), where
            assert chat.message_count == 6, where
            messages = await damaged.messages(first.chat_id)
            assert [m.content for m in messages] == [
                text for asked in turns for text in (asked.message, damaged.fleet.text)
            ], where
            for asked in turns:
                assert (await damaged.run(asked.run_id)).state is RunState.COMPLETED, where
