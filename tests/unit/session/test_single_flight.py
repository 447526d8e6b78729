"""A lease that came with a miss goes with the answer, or is given back without one."""

import asyncio

from parley_session.domain.model import RunState
from support.poll import until
from support.session_world import World, asking


async def test_the_lease_goes_with_the_answer(world: World) -> None:
    world.cache.lease = "lease"
    _, ended = await world.replica().complete(asking("Why?"))
    assert ended.run.state is RunState.COMPLETED
    assert [answer.lease for answer in world.cache.entries.values()] == ["lease"]
    assert world.cache.released == []


async def test_without_an_answer_it_is_released_so_that_others_go_on(world: World) -> None:
    world.cache.lease = "lease"
    replica = world.replica()
    world.fleet.hold_at = 2
    accepted = await replica.start(asking("Why?"))
    await until(lambda: accepted.live.length > 0)
    run = await replica.cancel(accepted.run.id)
    assert run.state is RunState.CANCELLED
    await until(lambda: world.cache.released == ["lease"])
    assert not world.cache.entries


async def test_a_lease_is_renewed_until_the_answer_is_there(world: World) -> None:
    world.cache.lease, world.cache.lease_seconds = "lease", 0.03
    replica = world.replica()
    world.fleet.hold_at = 2
    accepted = await replica.start(asking("Why?"))
    await until(lambda: len(world.cache.renewed) > 3)
    world.fleet.release.set()
    await until(lambda: bool(world.cache.entries))
    renewed = len(world.cache.renewed)
    await replica.quiet()
    assert not _renewing()
    assert len(world.cache.renewed) == renewed
    assert set(world.cache.renewed) == {"lease"}
    assert accepted.run.id


async def test_a_lease_that_has_ended_is_not_renewed_again(world: World) -> None:
    world.cache.lease, world.cache.lease_seconds = "lease", 0.03
    replica = world.replica()
    world.fleet.hold_at = 2
    await replica.start(asking("Why?"))
    await until(lambda: bool(world.cache.renewed))
    world.cache.lease_seconds = 0.0
    await until(lambda: not _renewing())


async def test_a_replica_that_hands_a_run_over_lets_its_lease_end(world: World) -> None:
    world.cache.lease, world.cache.lease_seconds = "lease", 60.0
    replica = world.replica()
    world.fleet.hold_at = 2
    await replica.start(asking("Why?"))
    await until(lambda: len(_renewing()) == 1)
    await replica.session.live_runs.drain(0)
    await until(lambda: not _renewing())


def _renewing() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "cache-lease"]
