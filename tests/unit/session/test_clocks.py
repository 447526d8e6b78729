"""A wall clock that is set while runs are made: forward, back, on one replica or another."""

import asyncio
from typing import Any

import pytest

from parley_session.answers.base import Hit, Miss, Query
from parley_session.domain.model import RunState
from parley_session.runs.asking import Accepted
from support.poll import until
from support.session_world import Replica, World, asking

HOUR = 3600.0
LEAPS = pytest.mark.parametrize("leap", [HOUR, -HOUR], ids=["forward", "back"])


async def begun(world: World, replica: Replica, **given: Any) -> Accepted:
    """Start an answer that stops after "Hello"."""
    world.fleet.hold_at = 2
    accepted: Accepted = await replica.start(asking(**given))
    live = accepted.live
    assert live is not None
    await until(lambda: live.text == "Hello")
    return accepted


@LEAPS
async def test_an_answer_in_progress_does_not_notice(world: World, leap: float) -> None:
    replica, other = world.replica(), world.replica()
    accepted = await begun(world, replica)
    await other.sweep()
    world.time.leap(leap)
    # Only the monotonic clock tells others that a holder is silent.
    for _ in range(3):
        await other.sweep()
    run = await world.run(accepted.run.id)
    assert (run.attempt, run.state) == (1, RunState.RUNNING)
    world.fleet.release.set()
    text, ended = await replica.read(accepted.run.id, live=accepted.live)
    assert text == world.fleet.text
    assert ended.run.state is RunState.COMPLETED
    assert ended.run.timings.finished is not None
    assert ended.run.timings.finished >= 0


@LEAPS
async def test_the_time_for_an_answer_is_reckoned_once(
    world: World, leap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = world.cache.lookup

    async def leaping(query: Query, *_: object) -> Hit | Miss:
        # After the run is held, before an engine is asked.
        live = await until(lambda: replica.session.live_runs.find(asked.run_id))
        await live.held()
        world.time.leap(leap)
        return await look_up(query)

    monkeypatch.setattr(world.cache, "lookup", leaping)
    replica, asked = world.replica(), asking(timeout_seconds=60)
    text, ended = await replica.complete(asked)
    assert text == world.fleet.text
    assert ended.run.state is RunState.COMPLETED
    (draw,) = world.fleet.draws
    assert 0 < draw.deadline - asyncio.get_running_loop().time() <= 60


@LEAPS
async def test_an_answer_that_hangs_ends_at_its_time(world: World, leap: float) -> None:
    replica = world.replica()
    accepted = await begun(world, replica, timeout_seconds=1)
    world.time.leap(leap)
    text, ended = await replica.read(accepted.run.id, live=accepted.live)
    assert text == "Hello"
    assert ended.run.error is not None
    assert ended.run.error.code == "timed_out"


@LEAPS
async def test_a_run_whose_replica_died_is_taken_over_within_the_lease(
    world: World, leap: float
) -> None:
    replica = world.replica()
    accepted = await begun(world, replica, timeout_seconds=600)
    await replica.kill()
    # Its deadline moves by as much: that was told by the wall clock, to be known to all.
    world.time.leap(leap / 10)
    world.fleet.hold_at = None
    other = world.replica()
    await world.repair(other)
    text, ended = await other.read(accepted.run.id)
    assert text == world.fleet.text
    assert ended.run.state is RunState.COMPLETED
    assert ended.run.attempt == 2
