"""A holder that stops hands its runs over; one that seems lost is taken over from early."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from parley_kit.errors import ServiceError
from parley_session.domain.model import RunState
from parley_session.runs import taking
from parley_session.runs.asking import Completion
from support.poll import until
from support.session_world import LEASE, Replica, World, asking


@pytest.fixture(autouse=True)
def _short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "PROBE_SECONDS", 0.02)


def id_of(replica: Replica) -> str:
    return replica.session.servicer._replica


async def _half_made(world: World, replica: Replica) -> Completion:
    asked = asking("One")
    world.fleet.hold_at = 3
    accepted = await replica.start(asked)
    await until(lambda: accepted.live.text == "".join(world.fleet.answer[:3]))
    return asked


async def _stop(replica: Replica) -> None:
    """Stop in order, with no time for the answers that are being made."""
    await replica.session.live_runs.drain(0)


async def test_a_stopping_holder_hands_over_and_its_reader_goes_on_elsewhere_at_once(
    world: World,
) -> None:
    replica, other = world.replica(), world.replica()
    asked = await _half_made(world, replica)
    await _stop(replica)
    run = await world.run(asked.run_id)
    assert run.handed_over == run.attempt == 1
    world.fleet.release.set()
    # No time passes, nobody sweeps.
    text, ended = await other.read(asked.run_id)
    assert text == world.fleet.text
    assert ended.run.state is RunState.COMPLETED
    assert ended.run.attempt == 2
    assert len(world.fleet.draws) == 2


async def test_a_run_handed_over_that_nobody_reads_is_swept_up_without_its_lease(
    world: World,
) -> None:
    replica, other = world.replica(), world.replica()
    asked = await _half_made(world, replica)
    await _stop(replica)
    world.fleet.release.set()
    # Busy for long enough to be looked at, silent for less than the lease.
    world.time.advance(8)
    await other.sweep()
    await other.quiet()
    assert (await world.run(asked.run_id)).content == world.fleet.text


async def test_a_reader_of_a_stopping_replica_is_sent_elsewhere(world: World) -> None:
    replica, other = world.replica(), world.replica()
    asked = await _half_made(world, replica)
    reading = asyncio.create_task(other.read(asked.run_id))
    await until(lambda: other.session.live_runs is not None)
    await _stop(other)
    with pytest.raises(ServiceError) as moved:
        await other.read(asked.run_id)
    assert moved.value.code == "unavailable"
    with pytest.raises(ServiceError) as refused:
        await other.start(asking("Two"))
    assert refused.value.code == "unavailable"
    world.fleet.release.set()
    await asyncio.wait({reading})
    text, _ = await replica.read(asked.run_id)
    assert text == world.fleet.text


async def test_a_store_that_is_away_leaves_the_run_to_its_lease(world: World) -> None:
    replica, other = world.replica(), world.replica()
    asked = await _half_made(world, replica)
    world.store.away = True
    await _stop(replica)
    world.store.away = False
    assert (await world.run(asked.run_id)).handed_over == 0
    world.fleet.release.set()
    await world.repair(other)
    assert (await world.run(asked.run_id)).content == world.fleet.text


async def test_a_lost_holder_is_taken_over_from_on_a_hint(world: World) -> None:
    replica, other = world.replica(), world.replica()
    asked = await _half_made(world, replica)
    await replica.kill()
    assert (await world.run(asked.run_id)).handed_over == 0
    world.fleet.release.set()
    text, ended = await other.read(asked.run_id, offset=3, lost_replica=id_of(replica))
    assert text == world.fleet.text[3:]
    assert ended.run.attempt == 2


async def test_a_run_that_is_not_started_is_taken_on_a_hint_as_well(world: World) -> None:
    replica, other = world.replica(), world.replica()
    asked = asking("One")
    original = replica.death.write

    async def dying(name: str, call: Callable[[], Any]) -> Any:
        if name == "create":
            replica.death.dead = True
        return await original(name, call)

    replica.death.write = dying  # type: ignore[method-assign]
    await replica.start(asked)
    await replica.quiet()
    text, ended = await other.read(asked.run_id, lost_replica=id_of(replica))
    assert text == world.fleet.text
    assert ended.run.attempt == 2


@pytest.mark.parametrize("lie", ["another replica", "it still writes", "its log is gone"])
async def test_a_hint_that_does_not_hold_takes_nothing_over(
    world: World, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    replica, other = world.replica(), world.replica()
    asked = await _half_made(world, replica)
    lost = id_of(world.replica() if lie == "another replica" else replica)
    if lie == "its log is gone":
        world.log.wipe()
    monkeypatch.setattr(taking, "PROBE_SECONDS", 0.2)
    reading = asyncio.create_task(other.read(asked.run_id, lost_replica=lost))
    if lie == "it still writes":
        await asyncio.sleep(0)
        world.fleet.release.set()
    else:
        probed = asyncio.create_task(other.session.live_runs.launched(asked.run_id, 0.4))
        assert await probed is None
        world.fleet.release.set()
    text, ended = await reading
    assert text == world.fleet.text
    assert ended.run.attempt == (2 if lie == "its log is gone" else 1)
    assert len(world.fleet.draws) == 1


async def test_a_holder_that_lives_is_fenced_by_a_taker_and_no_byte_differs(world: World) -> None:
    replica, other = world.replica(), world.replica()
    asked = await _half_made(world, replica)
    reading = asyncio.create_task(replica.read(asked.run_id))
    taken = asyncio.create_task(other.read(asked.run_id, lost_replica=id_of(replica)))
    await until(lambda: len(world.fleet.draws) == 2)
    world.fleet.release.set()
    (mine, _), (theirs, ended) = await asyncio.gather(reading, taken)
    assert mine == theirs == world.fleet.text
    assert ended.run.attempt == 2


async def test_a_run_that_outlives_three_holders_is_poisoned_and_keeps_its_text(
    world: World,
) -> None:
    first = world.replica()
    asked = await _half_made(world, first)
    await first.kill()
    for lost in range(1, 3):
        replica = world.replica()
        world.time.advance(LEASE)
        await replica.sweep()
        world.time.advance(LEASE)
        await replica.sweep()
        await until(lambda lost=lost: len(world.fleet.draws) == 1 + lost)  # type: ignore[misc]
        assert (await world.run(asked.run_id)).faults == lost
        await replica.kill()
    last = world.replica()
    await world.repair(last)
    text, ended = await last.read(asked.run_id)
    assert ended.run.state is RunState.FAILED
    assert ended.run.error is not None
    assert ended.run.error.code == "poisoned"
    assert text == "".join(world.fleet.answer[:3])
    assert len(world.fleet.draws) == 3
    assert (await world.chat(asked.chat_id)).pending == ()


async def test_handing_over_is_no_fault_of_the_run(world: World) -> None:
    asked = await _half_made(world, world.replica())
    for replica in range(3):
        await _stop(world.replicas[replica])
        other = world.replica()
        reading = asyncio.create_task(other.read(asked.run_id))
        await until(lambda replica=replica: len(world.fleet.draws) == 2 + replica)  # type: ignore[misc]
        reading.cancel()
    assert (await world.run(asked.run_id)).faults == 0
