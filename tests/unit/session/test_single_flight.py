"""A lease that came with a miss goes with the answer, or is given back without one."""

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
