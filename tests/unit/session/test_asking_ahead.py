"""A question is looked up while its turn is stored, and nothing of a look-up is left behind."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from parley_kit.errors import ServiceError
from parley_session.answers import asked as asked_module
from parley_session.answers.base import Hit, Miss, Query, nobody_told
from parley_session.domain.model import CacheMode, CacheStatus, Run, RunState
from parley_session.runs.asking import Completion
from parley_session.store.base import StoreUnavailable
from support.poll import until
from support.session_world import Replica, World, asking


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked_module, "LONGEST", 0.01)


class Slow:
    """Has the cache think about each question until `answer` is set."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self._look_up = world.cache.lookup
        monkeypatch.setattr(world.cache, "lookup", self._lookup)

    async def _lookup(self, query: Query, waits: Callable[[], None] = nobody_told) -> Hit | Miss:
        self.asked.set()
        await self.answer.wait()
        return await self._look_up(query)


def left() -> list[str]:
    """Look-ups and leases that are somebody's still."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith(("look-up", "cache-lease"))]


def after_next(
    world: World, write: str, monkeypatch: pytest.MonkeyPatch, step: Callable[[], Awaitable[None]]
) -> None:
    """Have a step awaited once the next write of that name is applied."""
    original = getattr(world.store, write)

    async def writing(*args: Any) -> Any:
        monkeypatch.setattr(world.store, write, original)
        result = await original(*args)
        await step()
        return result

    monkeypatch.setattr(world.store, write, writing)


@pytest.mark.parametrize(
    ("write", "first"), [("insert_chat", True), ("accept_turn", False)], ids=["new", "existing"]
)
async def test_a_question_is_looked_up_while_its_turn_is_taken(
    world: World, monkeypatch: pytest.MonkeyPatch, write: str, first: bool
) -> None:
    replica = world.replica()
    one = asking()
    if not first:
        await replica.complete(one)
    world.cache.lookups.clear()
    two = one if first else asking("And now?", chat=one.chat_id)
    taking = getattr(world.store, write)

    async def looked_up_first(*args: Any) -> Any:
        await until(lambda: len(world.cache.lookups) == 1)
        return await taking(*args)

    monkeypatch.setattr(world.store, write, looked_up_first)
    text, ended = await replica.complete(two)
    assert (text, ended.run.state) == (world.fleet.text, RunState.COMPLETED)
    assert len(world.cache.lookups) == 1
    assert left() == []


async def test_a_hit_that_was_looked_up_ahead_is_served(world: World) -> None:
    replica = world.replica()
    await replica.complete(asking("Why?"))
    text, ended = await replica.complete(asking("Why?"))
    assert ended.run.cache is not None
    assert ended.run.cache.status is CacheStatus.EXACT
    assert (text, len(world.fleet.draws)) == (world.fleet.text, 1)
    assert left() == []


@pytest.mark.parametrize("mode", [CacheMode.BYPASS, CacheMode.REFRESH])
async def test_who_does_not_want_the_cache_has_nothing_looked_up(
    world: World, mode: CacheMode
) -> None:
    await world.replica().complete(asking(cache=mode))
    assert world.cache.lookups == []


async def test_what_is_refused_is_not_looked_up(world: World) -> None:
    with pytest.raises(ServiceError, match="context_too_long"):
        await world.replica().start(asking("word " * 2000))
    assert (world.cache.lookups, left()) == ([], [])


# what nobody uses is dropped ------------------------------------------------------


async def _beaten(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[Replica, Completion]:
    """One whose turn another replica meets and begins, before it has inserted the run."""
    one, other = world.replica(), world.replica()
    asked = asking()
    insert_message = world.store.insert_message

    async def beaten(message: Any) -> Any:
        monkeypatch.setattr(world.store, "insert_message", insert_message)
        await other.start(asked)
        return await insert_message(message)

    monkeypatch.setattr(world.store, "insert_message", beaten)
    return one, asked


async def test_where_another_begins_the_run_its_lease_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cache.lease, world.cache.lease_seconds = "lease", 60.0
    world.fleet.hold_at = 2
    one, asked = await _beaten(world, monkeypatch)
    accepted = await one.start(asked)
    assert accepted.live is None
    assert world.cache.released == ["lease", "lease"], "of both, who asked before they knew"
    assert left() == ["cache-lease"], "that of the replica which makes the run"
    world.fleet.release.set()
    text, _ = await one.read(asked.run_id)
    assert (text, len(world.fleet.draws)) == (world.fleet.text, 1)
    await until(lambda: left() == [])


async def test_where_another_begins_the_run_a_look_up_that_hangs_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, asked = await _beaten(world, monkeypatch)
    slow = Slow(world, monkeypatch)
    accepted = await one.start(asked)
    assert accepted.live is None
    assert left() == []
    slow.answer.set()
    text, _ = await one.read(asked.run_id)
    assert text == world.fleet.text
    assert len(world.cache.lookups) == 1
    await until(lambda: left() == [])


@pytest.mark.parametrize("taken", [False, None], ids=["somebody was faster", "nobody knows"])
async def test_where_the_turn_is_not_taken_its_lease_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch, taken: bool | None
) -> None:
    replica = world.replica()
    one = asking()
    await replica.complete(one)
    accept_turn = world.store.accept_turn
    world.cache.lookups.clear()
    world.cache.lease, world.cache.lease_seconds = "lease", 60.0

    async def beaten(*args: Any) -> bool:
        monkeypatch.setattr(world.store, "accept_turn", accept_turn)
        await until(lambda: len(world.cache.lookups) == 1)
        if taken is None:
            raise StoreUnavailable
        return taken

    monkeypatch.setattr(world.store, "accept_turn", beaten)
    starting = replica.complete(asking("And now?", chat=one.chat_id))
    if taken is None:
        with pytest.raises(StoreUnavailable):
            await starting
        assert world.cache.released == ["lease"]
    else:
        text, _ = await starting
        assert text == world.fleet.text
        assert world.cache.released[0] == "lease"
        assert len(world.cache.lookups) == 2
    await until(lambda: left() == [])


async def test_where_the_run_cannot_be_inserted_its_lease_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cache.lease, world.cache.lease_seconds = "lease", 60.0

    async def away(_: Run) -> bool:
        raise StoreUnavailable

    monkeypatch.setattr(world.store, "insert_run", away)
    with pytest.raises(StoreUnavailable):
        await world.replica().start(asking())
    assert (world.cache.released, left()) == (["lease"], [])


async def test_a_look_up_that_failed_is_told_and_fails_nobody_who_did_not_wait_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, asked = await _beaten(world, monkeypatch)
    look_up = world.cache.lookup

    async def failing(*_: object) -> Hit | Miss:
        monkeypatch.setattr(world.cache, "lookup", look_up)
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(world.cache, "lookup", failing)
    await one.start(asked)
    assert "a look-up failed unexpectedly" in caplog.text
    text, _ = await one.read(asked.run_id)
    assert text == world.fleet.text


async def test_a_defect_of_the_look_up_ends_the_run_that_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object) -> Hit | Miss:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(world.cache, "lookup", failing)
    _, ended = await world.replica().complete(asking())
    assert ended.run.error is not None
    assert ended.run.error.code == "internal"


async def test_cancelling_waits_for_no_look_up_and_its_lease_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_module, "LONGEST", 5.0)
    world.cache.lease, world.cache.lease_seconds = "lease", 60.0
    slow, replica = Slow(world, monkeypatch), world.replica()
    accepted = await replica.start(asking())
    await slow.asked.wait()
    run = await replica.cancel(accepted.run.id)
    assert run.state is RunState.CANCELLED
    assert run.cache is not None
    assert run.cache.reason == "not_asked"
    slow.answer.set()
    await replica.quiet()
    assert (world.cache.released, left()) == (["lease"], [])


@pytest.mark.parametrize("how", ["deleted", "stopped", "fenced", "late"])
async def test_a_run_that_ends_while_it_is_looked_up_leaves_no_look_up(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    slow = Slow(world, monkeypatch)
    replica = world.replica(lease_seconds=0.5, cache_head_start_seconds=0.0)
    world.fleet.hold_at = 1
    accepted = await replica.start(asking(timeout_seconds=1))
    await slow.asked.wait()
    await until(lambda: world.fleet.drawing == 1, what="an engine that draws beside it")
    if how == "deleted":
        assert await replica.delete(accepted.run.chat)
    elif how == "stopped":
        await replica.session.live_runs.drain(0)
        assert (await world.run(accepted.run.id)).handed_over == 1
    elif how == "fenced":
        assert await world.store.hold_run(accepted.run.id, 1, "another", 0)
    await replica.quiet()
    if how == "late":
        run = await world.run(accepted.run.id)
        assert run.error is not None
        assert run.error.code == "timed_out"
    assert left() == []
    assert (world.fleet.drawing, accepted.live.length) == (0, 0)
