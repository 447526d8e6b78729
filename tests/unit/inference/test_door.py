"""The door counts who is inside and shuts when too many wait."""

import asyncio
import contextlib
import time
from types import SimpleNamespace
from typing import Any

import pytest

from parley_inference.door import Door, Ticket
from parley_kit.errors import ServiceError


def refused(door: Door, request_id: str) -> str:
    with pytest.raises(ServiceError) as refusal:
        door.admit(request_id)
    return refusal.value.code


def test_nobody_enters_before_the_engine_has_started() -> None:
    assert refused(Door(10), "a") == "engine_unavailable"


def test_requests_beyond_the_batch_and_the_queue_are_refused() -> None:
    door = Door(max_waiting=1)
    door.open(max_running=2)
    with door.admit("a"), door.admit("b"):
        with door.admit("c"):
            assert refused(door, "d") == "overloaded"
        with door.admit("d"):
            pass
    assert (door.running, door.waiting, door.queued_tokens) == (0, 0, 0)


def test_a_request_waits_with_its_prompt_until_its_first_token() -> None:
    door = Door(4)
    door.open(4)
    with door.admit("a") as ticket:
        ticket.prompt(100)
        assert (door.running, door.waiting, door.queued_tokens) == (0, 1, 100)
        ticket.started()
        assert (door.running, door.waiting, door.queued_tokens) == (1, 0, 0)
    with door.admit("b") as ticket:
        ticket.prompt(7)
    assert (door.running, door.waiting, door.queued_tokens) == (0, 0, 0)


def test_two_live_requests_do_not_share_an_id() -> None:
    door = Door(4)
    door.open(4)
    with door.admit("a"):
        assert refused(door, "a") == "invalid_request"
    with door.admit("a"):
        pass


def test_a_draining_door_admits_until_it_is_shut() -> None:
    door = Door(4)
    door.open(4)
    door.drain()
    with door.admit("a"):
        pass
    door.close("the replica is draining")
    assert refused(door, "b") == "engine_unavailable"


async def test_watchers_learn_of_a_change_and_of_none() -> None:
    door = Door(4)
    version = door.version
    await door.change(version, 0.001)
    assert door.version == version
    watching = asyncio.ensure_future(door.change(version, 5))
    await asyncio.sleep(0)
    door.open(4)
    async with asyncio.timeout(5):
        await watching
    await door.change(version, 5)


async def enter(door: Door, name: str, ask: dict[str, float] | None = None) -> Ticket:
    """Wait for a turn as tenant ``name``'s; the ticket is inside the engine."""
    ticket = door.admit(f"{name}{id(object())}{door.version}")
    options = {"answer_tokens": 10, "priority": 0, "seconds": 30.0} | (ask or {})
    with contextlib.ExitStack() as inside:
        inside.enter_context(ticket)
        await ticket.turn(name, **options)  # type: ignore[arg-type]
        inside.pop_all()
    return ticket


def leave(ticket: Ticket) -> None:
    ticket.__exit__(None, None, None)


async def full_door(**options: Any) -> tuple[Door, list[Ticket]]:
    door = Door(100, **options)
    door.open(4)
    # What it batches and one ahead.
    return door, [await enter(door, "first") for _ in range(5)]


async def test_the_next_turn_is_the_tenants_that_had_less() -> None:
    door, inside = await full_door(shares={"big": 2.0})
    turns: list[str] = []

    async def wait(name: str) -> None:
        ticket = await enter(door, name)
        turns.append(name)
        leave(ticket)

    waiting = [asyncio.ensure_future(wait("flood")) for _ in range(6)]
    await asyncio.sleep(0)
    waiting += [asyncio.ensure_future(wait(name)) for name in ("small", "big", "big")]
    await asyncio.sleep(0)
    assert turns == []
    leave(inside[0])
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    assert "small" in turns[:4]
    assert turns[-3:] == ["flood"] * 3
    for ticket in inside[1:]:
        leave(ticket)
    assert (door.running, door.waiting) == (0, 0)


async def test_who_leaves_while_waiting_leaves_no_gap() -> None:
    door, inside = await full_door()
    waiting = [asyncio.ensure_future(enter(door, "x")) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    leave(inside[0])
    async with asyncio.timeout(5):
        ticket = await waiting[2]
    assert door.waiting == 5
    for left in (*inside[1:], ticket):
        leave(left)
    again = [await enter(door, "y") for _ in range(5)]
    assert len(again) == 5


async def test_the_turn_of_one_who_leaves_at_that_moment_is_the_next_ones() -> None:
    door, inside = await full_door()
    first, second = (asyncio.ensure_future(enter(door, "x")) for _ in range(2))
    await asyncio.sleep(0)
    leave(inside[0])
    first.cancel()
    async with asyncio.timeout(5):
        await second


async def test_a_wait_ends_at_its_deadline() -> None:
    door, _ = await full_door()
    with pytest.raises(ServiceError) as refusal:
        await enter(door, "x", {"seconds": 0.01})
    assert refusal.value.code == "timed_out"
    assert door.waiting == 5


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door, inside = await full_door()
    now = time.monotonic()
    monkeypatch.setattr("parley_inference.door.time", SimpleNamespace(monotonic=lambda: now))
    for _ in range(10):
        waiting = asyncio.ensure_future(enter(door, "x"))
        await asyncio.sleep(0)
        now += 2.0
        leave(inside.pop(0))
        inside.append(await waiting)
    assert door.expected_wait("y", 0) == pytest.approx(2.0)
    with pytest.raises(ServiceError) as refusal:
        await enter(door, "y", {"seconds": 1.0})
    assert refusal.value.code == "overloaded"
    assert refusal.value.retry_after == pytest.approx(2.0)
    patient = asyncio.ensure_future(enter(door, "y", {"seconds": 3.0}))
    await asyncio.sleep(0)
    leave(inside.pop())
    await patient


def test_tokens_that_wait_are_bounded_but_one_prompt_always_fits() -> None:
    door = Door(10, max_queued_tokens=100)
    door.open(4)
    with door.admit("a") as ticket:
        ticket.prompt(5000)
        with door.admit("b") as other, pytest.raises(ServiceError) as refusal:
            other.prompt(1)
        assert refusal.value.code == "overloaded"
        ticket.started()
        with door.admit("c") as third:
            third.prompt(99)
    assert door.queued_tokens == 0


async def test_those_who_wait_are_sent_elsewhere_when_the_door_is_shut() -> None:
    door, inside = await full_door()
    waiting = asyncio.ensure_future(enter(door, "x"))
    await asyncio.sleep(0)
    door.close("the replica is draining")
    with pytest.raises(ServiceError) as refusal:
        await waiting
    assert refusal.value.code == "engine_unavailable"
    for ticket in inside:
        leave(ticket)
    assert (door.running, door.waiting) == (0, 0)
