"""The door counts who is inside and shuts when too many wait."""

import asyncio

import pytest

from parley_inference.door import Door
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
