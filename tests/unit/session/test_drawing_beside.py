"""An engine draws while the cache still seeks, and nothing of it is seen before that is decided."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

import pytest
from parley.inference.v1 import inference_pb2 as pb

from parley_session import metrics
from parley_session.answers.base import Hit, Miss, Query, nobody_told
from parley_session.domain import errors
from parley_session.domain.model import CacheStatus, FinishReason, RunState
from parley_session.fleet.base import Draw
from parley_session.runs.live import Ended
from support.poll import until
from support.session_fakes import model
from support.session_world import Replica, World, asking


class Seeking:
    """Has the cache seek until `answer` is set; it says that another makes the answer first
    where `another` is set.
    """

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = asyncio.Event()
        self.another = asyncio.Event()
        self.answer = asyncio.Event()
        self._look_up = world.cache.lookup
        monkeypatch.setattr(world.cache, "lookup", self._lookup)

    async def _lookup(self, query: Query, waits: Callable[[], None] = nobody_told) -> Hit | Miss:
        self.asked.set()
        told = asyncio.ensure_future(self.another.wait())
        answered = asyncio.ensure_future(self.answer.wait())
        try:
            await asyncio.wait({told, answered}, return_when=asyncio.FIRST_COMPLETED)
            if not self.answer.is_set():
                waits()
                await answered
        finally:
            told.cancel()
            answered.cancel()
        return await self._look_up(query)


@pytest.fixture
def seeking(world: World, monkeypatch: pytest.MonkeyPatch) -> Seeking:
    return Seeking(world, monkeypatch)


def replica_of(world: World) -> Replica:
    return world.replica(cache_head_start_seconds=0.0)


def drawn_beside(outcome: str) -> float:
    return float(metrics.DRAWN_BESIDE.labels(outcome)._value.get())


def status_of(ended: Ended) -> CacheStatus:
    assert ended.run.cache is not None
    return ended.run.cache.status


async def drawing(world: World, count: int) -> None:
    await until(lambda: world.fleet.drawing == count)


async def test_what_is_drawn_meanwhile_is_the_answer_to_a_miss(
    world: World, seeking: Seeking
) -> None:
    before = drawn_beside("used")
    replica, asked = replica_of(world), asking()
    accepted = await replica.start(asked)
    # All of it is drawn, and none of it is seen.
    await until(lambda: len(world.fleet.draws) == 1)
    await drawing(world, 0)
    assert accepted.live.length == 0
    seeking.answer.set()
    text, ended = await replica.read(asked.run_id, live=accepted.live)
    assert (text, ended.run.state) == (world.fleet.text, RunState.COMPLETED)
    assert status_of(ended) is CacheStatus.MISS
    assert (len(world.fleet.draws), drawn_beside("used") - before) == (1, 1)


async def test_a_hit_ends_the_drawing_and_nothing_of_it_is_left(
    world: World, seeking: Seeking
) -> None:
    before = drawn_beside("hit")
    seeking.answer.set()
    replica = replica_of(world)
    await replica.complete(asking("Why?"))
    stored = world.fleet.text
    seeking.answer.clear()
    world.fleet.answer, world.fleet.hold_at = ["Something ", "else"], 1
    asked = asking("Why?")
    accepted = await replica.start(asked)
    await drawing(world, 1)
    assert replica.session.live_runs.on_their_way == 0
    seeking.answer.set()
    text, ended = await replica.read(asked.run_id, live=accepted.live)
    await drawing(world, 0)
    assert accepted.live.drawn, "nor will it be"
    assert (text, status_of(ended)) == (stored, CacheStatus.EXACT)
    assert ended.run.finish_reason is FinishReason.STOP
    # What was stored with the answer, not what was thrown away.
    assert ended.run.usage.completion_tokens == 6
    assert drawn_beside("hit") - before == 1


async def test_who_waits_for_anothers_answer_draws_none_meanwhile(
    world: World, seeking: Seeking
) -> None:
    before = drawn_beside("waited")
    world.fleet.hold_at = 1
    replica, asked = replica_of(world), asking()
    accepted = await replica.start(asked)
    await drawing(world, 1)
    seeking.another.set()
    await drawing(world, 0)
    assert replica.session.live_runs.on_their_way == 1
    world.fleet.release.set()
    seeking.answer.set()
    text, ended = await replica.read(asked.run_id, live=accepted.live)
    assert (text, ended.run.state) == (world.fleet.text, RunState.COMPLETED)
    first, second = world.fleet.draws
    assert first.request_id != second.request_id, "the first may not be gone from its engine yet"
    assert drawn_beside("waited") - before == 1


async def test_a_look_up_that_ends_within_its_head_start_asks_no_engine(
    world: World, seeking: Seeking
) -> None:
    seeking.answer.set()
    replica = world.replica(cache_head_start_seconds=5.0)
    await replica.complete(asking("Why?"))
    seeking.answer.clear()
    asked = asking("Why?")
    accepted = await replica.start(asked)
    await accepted.live.held()
    seeking.answer.set()
    _, ended = await replica.read(asked.run_id, live=accepted.live)
    assert status_of(ended) is CacheStatus.EXACT
    assert len(world.fleet.draws) == 1


async def test_an_external_engine_is_not_asked_for_what_may_be_thrown_away(
    world: World, seeking: Seeking
) -> None:
    world.fleet.served["sim"] = replace(model(), external=True)
    replica, asked = replica_of(world), asking()
    accepted = await replica.start(asked)
    await seeking.asked.wait()
    await accepted.live.held()
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.fleet.draws == []
    seeking.answer.set()
    text, _ = await replica.read(asked.run_id, live=accepted.live)
    assert text == world.fleet.text


@pytest.mark.parametrize("stored", [True, False], ids=["hit", "miss"])
async def test_an_engine_that_fails_meanwhile_fails_a_miss_alone(
    world: World, seeking: Seeking, stored: bool
) -> None:
    seeking.answer.set()
    replica = replica_of(world)
    if stored:
        await replica.complete(asking("Why?"))
    seeking.answer.clear()
    world.fleet.hold_at, world.fleet.failure = 0, errors.engine_lost("gone")
    world.fleet.release.set()
    draws = len(world.fleet.draws)
    asked = asking("Why?")
    accepted = await replica.start(asked)
    await until(lambda: len(world.fleet.draws) == draws + 1)
    await drawing(world, 0)
    seeking.answer.set()
    _, ended = await replica.read(asked.run_id, live=accepted.live)
    if stored:
        assert ended.run.state is RunState.COMPLETED
    else:
        assert ended.run.error is not None
        assert ended.run.error.code == "engine_lost"


async def test_without_an_engine_a_hit_is_served_all_the_same(
    world: World, seeking: Seeking, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeking.answer.set()
    replica = replica_of(world)
    await replica.complete(asking("Why?"))
    seeking.answer.clear()
    asked = asking("Why?")

    def gone(*_: object) -> bool:
        seeking.answer.set()
        return False

    monkeypatch.setattr(world.fleet, "has_own", gone)
    accepted = await replica.start(asked)
    _, ended = await replica.read(asked.run_id, live=accepted.live)
    assert status_of(ended) is CacheStatus.EXACT
    assert len(world.fleet.draws) == 1


async def test_a_miss_that_no_engine_has_taken_yet_asks_others_too(
    world: World, seeking: Seeking, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drawn_beside("left")
    draw, tentative = world.fleet.draw, list[bool]()

    async def placing(one: Draw) -> AsyncGenerator[pb.GenerateResponse, None]:
        tentative.append(one.tentative())
        await until(lambda: not one.tentative())
        async for event in draw(one):
            yield event

    monkeypatch.setattr(world.fleet, "draw", placing)
    replica, asked = replica_of(world), asking()
    accepted = await replica.start(asked)
    await until(lambda: tentative == [True])
    assert replica.session.live_runs.on_their_way == 1
    seeking.answer.set()
    text, _ = await replica.read(asked.run_id, live=accepted.live)
    assert (text, tentative) == (world.fleet.text, [True, False])
    assert drawn_beside("left") - before == 1


async def test_a_run_that_is_cancelled_meanwhile_leaves_no_drawing(
    world: World, seeking: Seeking
) -> None:
    world.fleet.hold_at = 1
    replica, asked = replica_of(world), asking()
    accepted = await replica.start(asked)
    await drawing(world, 1)
    await replica.cancel(asked.run_id, wait=0.0)
    _, ended = await replica.read(asked.run_id, live=accepted.live)
    assert (ended.run.state, ended.run.content) == (RunState.CANCELLED, "")
    await drawing(world, 0)
    seeking.answer.set()
    await replica.quiet()
