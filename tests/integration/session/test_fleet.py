"""The fleet over real engines that fail, freeze, fall silent, and come back."""

import asyncio
import dataclasses
import os
from typing import Any

import grpc
import pytest
from parley.inference.v1 import inference_pb2 as pb

from parley_kit.errors import ServiceError
from parley_session.fleet.base import Draw
from parley_session.fleet.choosing import Strategy
from parley_session.fleet.engine import Engine
from parley_session.fleet.grpc_fleet import FleetOptions, GrpcFleet
from parley_session.fleet.outliers import OutlierLimits
from support.fleets import address, choices, draw, engines, fleet_of
from support.inference import generate_request, sim_replica
from support.poll import until
from support.resolvers import ListedResolver
from support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.integration


async def test_a_chat_stays_with_one_engine_and_round_robin_spreads_it() -> None:
    async with engines(3) as started:
        addresses = [address(replica) for replica in started]
        async with fleet_of(*addresses) as fleet:
            counted = choices(fleet)
            for _ in range(6):
                await draw(fleet)
            assert list(counted.values()) == [6]
        async with fleet_of(
            *addresses, strategy=Strategy.ROUND_ROBIN, slow_start_seconds=0
        ) as fleet:
            counted = choices(fleet)
            for _ in range(6):
                await draw(fleet)
            assert sorted(counted.values()) == [2, 2, 2]


async def test_counting_goes_to_another_engine_when_one_is_frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("parley_session.fleet.grpc_fleet.COUNT_TRY_SECONDS", 0.2)
    async with (
        engines(2) as started,
        TcpProxy(address(started[0])) as proxy,
        fleet_of(proxy.address, address(started[1])) as fleet,
    ):
        # The one behind the link looks the least loaded.
        other = next(r for r in fleet._able("sim") if r.address != proxy.address)
        with other.use():
            proxy.stall()
            message = pb.ChatMessage(role=pb.ROLE_USER, content="some words")
            counts = await fleet.count_tokens("sim", [message], timeout=20)
            assert counts.tokens[0] > 0
        proxy.heal()


async def test_an_engine_that_keeps_failing_is_ejected_then_probed_and_taken_back() -> None:
    limits = OutlierLimits(failures=2, seconds=2.0)
    async with engines(2) as started, fleet_of(*map(address, started), outliers=limits) as fleet:
        counted = choices(fleet)
        await draw(fleet)
        (broken,) = counted
        good = next(a for a in map(address, started) if a != broken)
        replica = next(r for r in started if address(r) == broken)
        # Its door is shut, and it says so to nobody but those who knock.
        door = replica._door
        admit = door.admit

        def refuse(request_id: str) -> Any:
            raise ServiceError(grpc.StatusCode.UNAVAILABLE, "engine_unavailable", "no")

        door.admit = refuse
        for number in range(40):
            assert await draw(fleet, chat=f"chat{number}")
        assert fleet._outliers.ejected(broken)
        counted.clear()
        await draw(fleet, chat="one more")
        assert set(counted) == {good}
        door.admit = admit

        async def back() -> bool:
            # Other chats, for the first one is warm elsewhere by now.
            await draw(fleet, chat=os.urandom(4).hex())
            return not fleet._outliers.ejected(broken)

        await until(back)
        counted.clear()
        for number in range(40):
            await draw(fleet, chat=f"new{number}")
        assert set(counted) == {broken, good}


async def test_when_all_engines_fail_at_once_the_first_that_recovers_serves() -> None:
    limits = OutlierLimits(failures=1, seconds=60)
    async with engines(3) as started, fleet_of(*map(address, started), outliers=limits) as fleet:
        doors = [replica._door for replica in started]
        for door in doors:
            door.close("out of order")
            # Load reports still say that it is open: the session has not noticed.
            door.draining = False
        refused = asyncio.create_task(draw(fleet))
        await until(lambda: sum(fleet._outliers.ejected(address(r)) for r in started) > 0)
        doors[1].open(8)
        assert await refused


async def test_an_engine_whose_reports_are_lost_still_serves_at_its_last_size() -> None:
    async with engines(1, sim_concurrency=7) as (started,), fleet_of(address(started)) as fleet:
        (replica,) = fleet._able("sim")
        engine = replica.attachment
        await engine.close()
        engine.stale = True
        assert engine.capacity == 7
        assert fleet.capacity("sim") == 7
        assert fleet.room("sim") > 0
        with replica.use(), replica.use():
            assert engine.load(replica.inflight) == 2
        assert await draw(fleet)


async def test_reports_that_stop_and_come_again_are_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("parley_session.fleet.engine.SILENCE_SECONDS", 0.3)
    monkeypatch.setattr("parley_session.fleet.engine.RETRY_SECONDS", 0.05)
    async with (
        engines(1) as (started,),
        TcpProxy(address(started)) as proxy,
        fleet_of(proxy.address) as fleet,
    ):
        (replica,) = fleet._able("sim")
        engine = replica.attachment
        since = engine.since
        proxy.stall()
        await until(lambda: engine.stale)
        assert engine.capacity > 1
        proxy.heal()
        await until(lambda: not engine.stale)
        # It is the same process: nothing to start slowly.
        assert engine.since == since


@pytest.mark.parametrize("end", [RuntimeError("a defect"), asyncio.CancelledError()])
async def test_an_engine_is_watched_on_whatever_ended_the_watch(
    monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    follow, begun = Engine._follow_reports, 0

    async def fails_once(self: Engine) -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise end
        await follow(self)

    monkeypatch.setattr(Engine, "_follow_reports", fails_once)
    async with engines(1) as (started,), fleet_of(address(started)) as fleet:
        assert begun == 2
        assert await draw(fleet)


async def test_an_adapter_is_a_model_of_its_own() -> None:
    async with engines(1) as started:
        (replica,) = started
        engine = replica._engine
        engine._info = dataclasses.replace(engine.info, adapters={"a-first": "1+a"})
        async with fleet_of(*map(address, started)) as fleet:
            await until(lambda: fleet._able("a-first"), what="the adapter")
            base, adapter = await fleet.find(""), await fleet.find("a-first")
            # Not the first by name, nor mistaken for it: what has no base is the default.
            assert (base.id, base.base, base.adapters) == ("sim", "", ("a-first",))
            assert (adapter.id, adapter.base, adapter.adapters) == ("a-first", "sim", ())
            assert adapter.revision == "1+a" != base.revision
            assert adapter.tokenizer_id == base.tokenizer_id
            assert [model.id for model in await fleet.models()] == ["a-first", "sim"]


async def test_the_work_there_is_is_told_in_engines() -> None:
    async with (
        engines(2, sim_concurrency=4, sim_itl=0.05, sim_answer_tokens=0) as started,
        fleet_of(*map(address, started)) as fleet,
    ):
        assert fleet.demand(0) == {"sim": 0.0}
        # Two engines' worth waits before them, whether or not they have room.
        assert fleet.demand(8) == {"sim": 2.0}
        answers = [asyncio.create_task(draw(fleet, chat=f"chat{n}")) for n in range(6)]
        await until(lambda: fleet.demand(0)["sim"] == 1.5)
        assert fleet.demand(4)["sim"] == 2.5
        await asyncio.gather(*answers)
        await until(lambda: fleet.demand(0)["sim"] == 0.0)


async def test_a_model_whose_engines_have_left_is_unavailable_not_unknown() -> None:
    options = FleetOptions(default_model="announced")
    async with (
        sim_replica(model_id="alpha") as (alpha, _),
        sim_replica(model_id="beta") as (beta, _),
    ):
        resolver = ListedResolver(address(alpha), address(beta))
        fleet = GrpcFleet(resolver, options)
        await fleet.start()
        try:
            await until(lambda: fleet._able("alpha") and fleet._able("beta"), what="both models")
            resolver.set(address(beta))
            await until(lambda: not fleet._able("alpha"))
            assert [model.id for model in await fleet.models()] == ["beta"]
            # Named by an engine once, or by the configuration.
            for name in ("alpha", "announced", ""):
                with pytest.raises(ServiceError) as refused:
                    await fleet.find(name)
                assert refused.value.code == "engine_unavailable"
                assert refused.value.retry_after
            with pytest.raises(ServiceError) as refused:
                await fleet.find("gamma")
            assert refused.value.code == "model_not_found"
            resolver.set(address(alpha), address(beta))
            await until(lambda: fleet._able("alpha"), what="the model again")
            assert (await fleet.find("alpha")).id == "alpha"
        finally:
            await fleet.stop()


async def test_work_for_a_model_without_engines_is_told_by_what_one_had() -> None:
    async with engines(1, sim_concurrency=4) as (started,):
        resolver = ListedResolver(address(started))
        fleet = GrpcFleet(resolver)
        await fleet.start()
        try:
            await until(lambda: fleet.demand(0) == {"sim": 0.0})
            resolver.set()
            await until(lambda: not fleet._able("sim"))
            assert fleet.demand(6) == {"sim": 1.5}
        finally:
            await fleet.stop()


async def test_a_drawing_that_is_given_up_before_its_first_token_was_no_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with engines(1) as (started,), fleet_of(address(started)) as fleet:
        untried: list[str] = []
        monkeypatch.setattr(fleet._outliers, "untried", untried.append)
        placed = asyncio.Event()
        request = generate_request("[[sim:slow ttft=30]] hello")
        deadline = asyncio.get_running_loop().time() + 20
        drawing = fleet.draw(Draw(request, "given-up", deadline, "chat", placed=placed.set))
        first = asyncio.ensure_future(anext(drawing))
        await placed.wait()
        first.cancel()
        await asyncio.wait({first})
        await drawing.aclose()
        assert untried == [address(started)]
        assert await draw(fleet)
        assert untried == [address(started)]
