"""The simulation: its arithmetic, that nothing gets lost in it, and what it is to show."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from parley_session.fleet.choosing import Strategy
from parley_simulation import routing, scaling
from parley_simulation.autoscaler import Autoscaler, by_demand
from parley_simulation.engine import EngineModel, Request, VirtualEngine
from parley_simulation.events import Events
from parley_simulation.workload import ChatModel, chats
from parley_simulation.world import World, WorldOptions

MODEL = EngineModel(
    batch=2, first=0.1, prefill_tokens_per_second=1000, itl=0.05, itl_more=0.01, cache_tokens=5000
)


def engine(events: Events, ended: list[Request]) -> VirtualEngine:
    return VirtualEngine(events, "e", MODEL, ended.append, lambda _request: None)


def played(seconds: float = 30.0, **options: Any) -> World:
    world = World(WorldOptions(**({"engines": 4} | options)))
    model = world.options.chats
    world.play(chats(model, lambda _: 1.0, 1.0, seconds, world.options.seed))
    return world


def test_one_request_alone_takes_prefill_then_its_tokens() -> None:
    events = Events()
    ended: list[Request] = []
    engine(events, ended).submit(Request("c", 500, 11, 0.0))
    events.run(10)
    (request,) = ended
    assert request.ttft == pytest.approx(0.1 + 0.5)
    assert request.tpot == pytest.approx(0.05)


def test_prompts_are_computed_one_after_the_other_and_a_full_batch_waits() -> None:
    events = Events()
    ended: list[Request] = []
    one = engine(events, ended)
    for chat in "abc":
        one.submit(Request(chat, 500, 21, 0.0))
    assert (one.running, one.load) == (2, 3)
    events.run(20)
    first, second, third = ended
    assert first.ttft == pytest.approx(0.6)
    assert second.ttft == pytest.approx(1.1)
    # It joins when the first has ended. Two draw more slowly than one.
    assert third.ttft == pytest.approx(first.ended_at + 0.6)
    assert 0.05 < first.tpot < 0.06
    assert 0.05 < second.tpot < 0.06


def test_a_prefix_is_cached_until_others_push_it_out() -> None:
    events = Events()
    ended: list[Request] = []
    one = engine(events, ended)
    for chat, prompt in (("a", 1000), ("a", 2000), ("b", 4000), ("a", 2500)):
        one.submit(Request(chat, prompt, 10, events.now))
        events.run(events.now + 20)
    assert [request.cached_tokens for request in ended] == [0, 1008, 0, 0]


def test_what_was_drawn_before_a_crash_is_not_drawn_again() -> None:
    events = Events()
    ended: list[Request] = []
    first, second = engine(events, ended), engine(events, ended)
    first.submit(Request("c", 500, 101, 0.0))
    events.run(0.6 + 50 * 0.05)
    (lost,) = first.lose_all()
    assert lost.drawn == pytest.approx(51, abs=1)
    second.submit(lost)
    events.run(60)
    assert ended == [lost]
    assert lost.ended_at == pytest.approx(3.1 + 0.1 + 0.55 + 50 * 0.05, abs=0.1)


def test_a_seed_gives_the_same_chats_and_the_same_answers() -> None:
    def run() -> list[tuple[str, float, float]]:
        world = played(seed=7)
        world.events.run(400)
        return [(r.chat, r.first_at, r.ended_at) for r in world.finished]

    assert run() == run()
    assert len(run()) > 50


@pytest.mark.parametrize("strategy", Strategy)
def test_no_answer_is_lost_whatever_fails(strategy: Strategy) -> None:
    quiet = played(strategy=strategy)
    quiet.events.run(1000)
    world = played(strategy=strategy)
    first, second, third, _ = list(world.engines)
    world.events.at(5, lambda: world.crash(first, 10))
    world.events.at(6, lambda: world.freeze(second, 20))
    world.events.at(7, lambda: world.refuse(third, 20))
    world.events.run(1000)
    assert len(world.finished) == len(quiet.finished)
    assert any(request.moves for request in world.finished)
    assert not world.queue
    assert all(not e.load for e in world.engines.values())


def test_every_engine_frozen_at_once_is_outlived() -> None:
    world = played()
    for address in list(world.engines):
        world.events.at(10, partial(world.freeze, address, 15))
    world.events.run(1000)
    quiet = played()
    quiet.events.run(1000)
    assert len(world.finished) == len(quiet.finished)


def test_affinity_finds_more_prefixes_than_taking_turns() -> None:
    def hits(strategy: Strategy) -> float:
        cell = routing.Cell(10, strategy, faults=False, rate=0.2, seed=1)
        return routing.run(cell).prefix_hits

    assert hits(Strategy.AFFINITY) > 1.2 * hits(Strategy.ROUND_ROBIN)


def test_an_engine_that_is_scaled_away_ends_its_answers_first() -> None:
    world = played()
    world.events.run(20)
    busy = max(world.engines.values(), key=lambda e: e.load)
    assert busy.load
    world.drain_engine(busy.address)
    world.events.run(1000)
    assert busy.address not in world.engines
    assert not any(request.moves for request in world.finished)


def test_the_autoscaler_follows_the_work_up_and_down_and_then_stands() -> None:
    world = World(WorldOptions(engines=2, chats=replace(ChatModel(), turns=1.0)))
    scaler = Autoscaler(world, by_demand, start_seconds=30)
    # Work for about five full engines, for ten minutes.
    world.play(chats(world.options.chats, lambda _: 8.0, 8.0, 600, 1))
    world.events.run(600)
    assert 5 <= len(world.ready()) <= 12
    world.events.run(2000)
    assert len(world.ready()) == 2
    assert scaler.scaled.turns <= 4
    assert world.finished


def test_a_cell_of_the_scaling_table_comes_to_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "SECONDS", 90.0)
    cell = scaling.Cell("engine demand / 0.7", "classes", 30.0, 1)
    share, ttft, hours, turns, most = scaling.run(cell)
    assert 0 < share <= 1
    assert ttft > 0
    assert hours > 0
    assert turns >= 0
    assert most >= 2
