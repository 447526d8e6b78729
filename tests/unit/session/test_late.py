"""Runs that are met long after their deadline: what was seen of them is kept, and they end."""

from typing import Any

import pytest

from parley_kit.errors import ServiceError
from parley_session.domain.model import RunState
from parley_session.runs import making
from parley_session.runs.asking import Accepted
from support.poll import until
from support.session_mortal import Killed
from support.session_world import Replica, World, asking


async def _begun(world: World, replica: Replica, **given: Any) -> Accepted:
    """Start an answer that stops after "Hello"."""
    world.fleet.hold_at = 2
    accepted: Accepted = await replica.start(asking(**given))
    live = accepted.live
    assert live is not None
    await until(lambda: live.text == "Hello")
    return accepted


async def test_an_answer_that_could_not_be_stored_in_time_is_taken_from_its_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "COMMIT_GRACE", 0.1)
    replica = world.replica()
    accepted = await _begun(world, replica, timeout_seconds=1)
    world.store.away = True
    with pytest.raises(ServiceError) as refused:
        await replica.read(accepted.run.id, live=accepted.live)
    assert refused.value.code == "store_unavailable"
    world.store.away = False
    world.time.advance(1000)
    other = world.replica()
    await world.repair(other)
    text, ended = await other.read(accepted.run.id)
    assert text == "Hello"
    assert ended.run.error is not None
    assert ended.run.error.code == "timed_out"
    assert (await world.chat(accepted.run.chat)).pending == ()


async def test_a_run_whose_replica_died_long_ago_ends_with_what_it_had(world: World) -> None:
    replica = world.replica()
    accepted = await _begun(world, replica)
    await replica.kill()
    world.time.advance(3600)
    other = world.replica()
    await world.repair(other)
    text, ended = await other.read(accepted.run.id)
    assert text == "Hello"
    assert ended.run.state is RunState.FAILED
    assert ended.run.error is not None
    assert ended.run.error.code == "timed_out"
    assert (await world.messages(accepted.run.chat))[1].content == "Hello"


async def test_a_turn_that_nobody_began_in_its_time_ends_without_text(world: World) -> None:
    asked = asking()
    dying = world.replica()
    dying.death.at, dying.death.after = 1, True
    with pytest.raises(Killed):
        await dying.start(asked)
    world.time.advance(3600)
    other = world.replica()
    await world.repair(other)
    run = await world.run(asked.run_id)
    assert run.state is RunState.FAILED
    assert run.content == ""
    assert (await world.chat(asked.chat_id)).pending == ()
    assert len(await world.messages(asked.chat_id)) == 2
