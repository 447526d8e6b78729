"""Runs that wait for the fleet: bounded, in turn, told, and never forgotten."""

import asyncio
import contextlib

import pytest

from parley_kit.errors import ServiceError
from parley_session.domain.model import Chat, Principal, RunState
from parley_session.runs.asking import Completion
from parley_session.runs.live import Ended, Queued
from support.poll import until
from support.session_mortal import Killed, deaths
from support.session_world import ALICE, LEASE, Replica, World, asking, world

CAROL = Principal("globex", "carol")


async def _full(world: World, replica: Replica) -> Completion:
    """A fleet of one slot, which an answer takes that stops in the middle."""
    world.fleet.slots = 1
    world.fleet.hold_at = 2
    first = asking("One")
    await replica.start(first)
    await until(lambda: world.fleet.drawing)
    return first


async def _freed(world: World, *replicas: Replica) -> None:
    """Let answers go on, each replica taking what waits, until nothing does."""
    world.fleet.release.set()

    async def all_done() -> bool:
        for replica in replicas:
            await replica.dispatch()
        return not len(world.queue) and not any(len(r.session.live_runs) for r in replicas)

    await until(all_done, what="nothing waits")


async def test_a_run_waits_while_the_fleet_is_full_and_begins_when_it_is_not(
    world: World,
) -> None:
    replica, other = world.replica(), world.replica()
    await _full(world, replica)
    second = asking("Two")
    accepted = await replica.start(second)
    assert accepted.live is None
    assert (await world.run(second.run_id)).state is RunState.QUEUED
    await other.dispatch()
    assert len(world.fleet.draws) == 1
    await _freed(world, other, replica)
    text, ended = await replica.read(second.run_id)
    assert text == world.fleet.text
    assert ended.run.attempt == 1


async def test_nobody_overtakes_those_who_wait(world: World) -> None:
    replica = world.replica()
    await _full(world, replica)
    await replica.start(asking("Two"))
    world.fleet.slots = 2
    assert (await replica.start(asking("Three"))).live is None
    await replica.dispatch()
    await until(lambda: len(world.fleet.draws) == 2)
    assert world.fleet.draws[1].request.messages[-1].content == "Two"


async def test_tenants_are_served_in_turn_and_told_so(world: World) -> None:
    replica = world.replica()
    await _full(world, replica)
    mine = [asking(f"acme {n}") for n in range(3)]
    theirs = [asking(f"globex {n}") for n in range(2)]
    for asked in mine:
        await replica.start(asked)
    for asked in theirs:
        await replica.start(asked, CAROL)

    async def place(asked: Completion, principal: Principal) -> object:
        async for event in replica.follow(asked.run_id, principal=principal):
            return event
        return None

    assert [await place(asked, ALICE) for asked in mine] == [Queued(2), Queued(4), Queued(5)]
    assert [await place(asked, CAROL) for asked in theirs] == [Queued(2), Queued(4)]
    await _freed(world, replica)
    order = [draw.request.messages[-1].content for draw in world.fleet.draws[1:]]
    assert order == ["acme 0", "globex 0", "acme 1", "globex 1", "acme 2"]


async def test_a_reader_is_told_its_place_and_then_the_answer(world: World) -> None:
    replica, other = world.replica(), world.replica()
    await _full(world, replica)
    second, third = asking("Two"), asking("Three")
    await replica.start(second)
    await replica.start(third)
    seen: list[object] = []

    async def read() -> None:
        async for event in other.follow(third.run_id):
            seen.append(event)  # noqa: PERF401 - looked at while it grows

    reading = asyncio.create_task(read())
    await until(lambda: seen == [Queued(2)])
    await _freed(world, replica)
    async with asyncio.timeout(5):
        await reading
    assert isinstance(seen[-1], Ended)
    assert "".join(e.text for e in seen if hasattr(e, "text")) == world.fleet.text


async def test_bounds_are_said_before_anything_is_stored(world: World) -> None:
    replica = world.replica()
    await _full(world, replica)
    for number in range(6):
        await replica.start(asking(f"{number}"))
    refused = asking("one too many of mine")
    with pytest.raises(ServiceError) as share:
        await replica.start(refused)
    assert share.value.code == "queue_full"
    assert share.value.retry_after is not None
    assert await world.store.get_chat(ALICE, refused.chat_id) is None
    for number in range(6):
        await replica.start(asking(f"{number}"), CAROL)
    with pytest.raises(ServiceError) as fleet:
        await replica.start(asking("one too many of all"), Principal("globex", "dan"))
    assert fleet.value.code == "overloaded"
    assert fleet.value.retry_after is not None
    world.queue.away = True
    with pytest.raises(ServiceError) as away:
        await replica.start(asking("nothing can wait"))
    assert away.value.code == "overloaded"


async def test_bounds_hold_for_requests_that_are_judged_at_the_same_instant(
    world: World,
) -> None:
    replicas = world.replica(), world.replica()
    await _full(world, replicas[0])
    arrived = 0
    all_there = asyncio.Event()
    insert = world.store.insert_chat

    async def together(chat: Chat) -> bool:
        # Nobody is accepted before all were judged.
        nonlocal arrived
        arrived += 1
        if arrived == 6:
            all_there.set()
        await all_there.wait()
        return await insert(chat)

    world.store.insert_chat = together  # type: ignore[method-assign]
    asked = [asking(f"{n}") for n in range(10)]
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(
            *(replicas[n % 2].start(each) for n, each in enumerate(asked)), return_exceptions=True
        )
    refused = [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
    assert [error.code for error in refused] == ["queue_full"] * 4
    assert len(world.queue) == 6


async def test_a_place_is_given_back_by_a_request_that_is_refused_after_all(
    world: World,
) -> None:
    replica = world.replica()
    await _full(world, replica)
    for _ in range(7):
        with pytest.raises(ServiceError) as refused:
            await replica.start(asking("word " * 1000))
        assert refused.value.code == "context_too_long"


async def test_no_more_begin_at_the_same_instant_than_there_is_room_for(world: World) -> None:
    replica = world.replica()
    world.fleet.slots = 3
    world.fleet.hold_at = 2
    accepted = await asyncio.gather(*(replica.start(asking(f"{n}")) for n in range(8)))
    assert sum(each.live is not None for each in accepted) == 3
    assert len(world.queue) == 5


async def test_what_the_queue_lost_is_put_back(world: World) -> None:
    replica, other = world.replica(), world.replica()
    await _full(world, replica)
    waiting = [asking(f"{n}") for n in range(3)]
    for asked in waiting:
        await replica.start(asked)
    world.queue.wipe()
    world.time.advance(LEASE)
    await other.sweep()
    assert len(world.queue) == 3
    await other.sweep()
    assert len(world.queue) == 3
    assert len(world.fleet.draws) == 1
    await _freed(world, other, replica)
    for asked in waiting:
        assert (await world.run(asked.run_id)).attempt == 1


async def test_a_queue_that_stays_away_is_done_without_after_the_lease(world: World) -> None:
    replica, other = world.replica(), world.replica()
    await _full(world, replica)
    second = asking("Two")
    await replica.start(second)
    world.queue.away = True
    world.fleet.release.set()
    await replica.quiet()
    for _ in range(3):
        world.time.advance(LEASE)
        await other.tidy()
    text, _ = await other.read(second.run_id)
    assert text == world.fleet.text


async def test_a_run_that_waits_beyond_its_deadline_ends_as_timed_out(world: World) -> None:
    replica = world.replica()
    await _full(world, replica)
    second = asking("Two", timeout_seconds=30)
    await replica.start(second)
    world.time.advance(31)
    await replica.sweep()
    _, ended = await replica.read(second.run_id)
    assert ended.run.error is not None
    assert ended.run.error.code == "timed_out"
    assert len(world.fleet.draws) == 1


async def test_a_deleted_or_cancelled_run_leaves_the_queue_when_its_turn_comes(
    world: World,
) -> None:
    replica = world.replica()
    await _full(world, replica)
    deleted, cancelled, last = asking("Two"), asking("Three"), asking("Four")
    for asked in (deleted, cancelled, last):
        await replica.start(asked)
    await replica.delete(deleted.chat_id)
    assert (await replica.cancel(cancelled.run_id)).state is RunState.CANCELLED
    await _freed(world, replica)
    assert (await world.run(last.run_id)).state is RunState.COMPLETED
    assert len(world.fleet.draws) == 2


async def test_the_next_turn_of_a_chat_waits_for_the_fleet_too(world: World) -> None:
    replica = world.replica()
    first = await _full(world, replica)
    from parley_session.domain.model import WhenBusy

    second = asking("Two", chat=first.chat_id, when_busy=WhenBusy.QUEUE)
    await replica.start(second)
    other = asking("Other")
    await replica.start(other)
    await _freed(world, replica)
    order = [draw.request.messages[-1].content for draw in world.fleet.draws]
    assert order == ["One", "Other", "Two"]


async def test_an_entry_whose_taker_died_is_taken_again(world: World) -> None:
    replica, other = world.replica(), world.replica()
    await _full(world, replica)
    second = asking("Two")
    await replica.start(second)
    assert await world.queue.take() is not None
    world.fleet.release.set()
    await replica.quiet()
    await other.dispatch()
    assert len(world.fleet.draws) == 1
    world.time.advance(10)
    await other.dispatch()
    text, _ = await other.read(second.run_id)
    assert text == world.fleet.text


async def test_dying_at_any_write_leaves_no_waiting_run_unanswered() -> None:
    second = asking("Two")

    async def scenario(world: World, replica: Replica) -> None:
        holder = world.replica()
        await _full(world, holder)
        with contextlib.suppress(Killed, ServiceError):
            await replica.start(second)
        world.fleet.release.set()
        await holder.quiet()
        with contextlib.suppress(Killed):
            await replica.dispatch()
        await replica.quiet()

    async with world() as undisturbed:
        probe = undisturbed.replica()
        await scenario(undisturbed, probe)
        writes = probe.death.writes
    assert {"insert_chat", "put", "take", "hold_run", "done"} <= set(writes)
    for where, death in deaths(writes):
        async with world() as damaged:
            await scenario(damaged, damaged.replica(death))
            assert death.dead, where
            other = damaged.replica()
            await damaged.repair(other)
            chat = await damaged.store.get_chat(ALICE, second.chat_id)
            if chat is None:
                assert where.split()[1] == "reserve" or where == "before insert_chat (2)"
                continue
            assert chat.pending == (), where
            assert [m.content for m in await damaged.messages(chat.id)] == [
                "Two", damaged.fleet.text,
            ], where  # fmt: skip
            assert len(damaged.queue) == 0, where
