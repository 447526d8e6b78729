"""Tenants whose questions must not leave the operator's own fleet, over engines of both kinds."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import pytest
from parley.inference.v1 import inference_pb2 as pb

from parley_kit.errors import ServiceError
from parley_kit.replicas import StaticResolver
from parley_session.fleet.base import Draw
from parley_session.fleet.choosing import Strategy, room
from parley_session.fleet.grpc_fleet import FleetOptions, GrpcFleet
from parley_session.fleet.policy import EnginePolicy, Engines
from support.fake_upstream import MODEL as HOSTED
from support.fake_upstream import FakeUpstream, fake_upstream
from support.inference import generate_request, replica_of, sim_replica
from support.poll import until

pytestmark = pytest.mark.integration

POLICY = EnginePolicy(of_tenants={"acme": Engines.OWN})
QUESTION = pb.ChatMessage(role=pb.ROLE_USER, content="a secret")


@dataclass(frozen=True)
class Both:
    """A fleet with an engine of its own, and one before an upstream of somebody else."""

    fleet: GrpcFleet
    upstream: FakeUpstream


@contextlib.asynccontextmanager
async def both(own_model: str, policy: EnginePolicy = POLICY) -> AsyncIterator[Both]:
    async with (
        fake_upstream() as upstream,
        sim_replica(model_id=own_model) as (own, _),
        replica_of(engine="openai", model=HOSTED, upstream_url=upstream.url) as (hosted, _),
    ):
        addresses = [f"127.0.0.1:{replica.port}" for replica in (own, hosted)]
        options = FleetOptions(policy=policy, strategy=Strategy.ROUND_ROBIN, slow_start_seconds=0)
        fleet = GrpcFleet(StaticResolver(addresses), options)
        await fleet.start()
        try:
            # An engine is ready some moments before its models are known.
            wanted = {name: [own_model, HOSTED].count(name) for name in (own_model, HOSTED)}

            def up() -> bool:
                return all(len(fleet._able(name)) == engines for name, engines in wanted.items())

            await until(up, what="both engines")
            yield Both(fleet, upstream)
        finally:
            await fleet.stop()


async def draw(
    fleet: GrpcFleet,
    tenant: str,
    model: str,
    seconds: float = 20,
    tentative: Callable[[], bool] = lambda: False,
) -> str:
    """Draw one answer to its end; its text."""
    request = generate_request("a secret", model=model, cache_salt=tenant)
    deadline = asyncio.get_running_loop().time() + seconds
    drawing = fleet.draw(
        Draw(
            request,
            os.urandom(4).hex(),
            deadline,
            os.urandom(4).hex(),
            tenant=tenant,
            tentative=tentative,
        )
    )
    return "".join([event.chunk.text async for event in drawing])


async def test_a_model_that_only_others_serve_is_neither_listed_nor_found() -> None:
    async with both("sim") as engines:
        fleet = engines.fleet
        # By name it would be the first.
        assert [model.id for model in await fleet.models("other")] == [HOSTED, "sim"]
        assert [model.id for model in await fleet.models("acme")] == ["sim"]
        assert (await fleet.find("", "other")).id == HOSTED
        assert (await fleet.find("", "acme")).id == "sim"
        assert (await fleet.find(HOSTED, "other")).external
        with pytest.raises(ServiceError, match="must not leave") as refused:
            await fleet.find(HOSTED, "acme")
        assert refused.value.code == "model_not_allowed"
        with pytest.raises(ServiceError) as refused:
            await fleet.find("no-such-model", "acme")
        assert refused.value.code == "model_not_found"


async def test_nothing_is_counted_or_drawn_there() -> None:
    async with both("sim") as engines:
        fleet, upstream = engines.fleet, engines.upstream
        with pytest.raises(ServiceError) as refused:
            await fleet.count_tokens(HOSTED, [QUESTION], 5, "acme")
        assert refused.value.code == "engine_unavailable"
        # An answer that was accepted under another policy waits for an engine that may.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.6):
                await draw(fleet, "acme", HOSTED)
        assert upstream.requests == []
        assert await draw(fleet, "other", HOSTED)
        assert len(upstream.requests) == 1


async def test_of_a_model_that_both_serve_a_tenant_meets_its_own_engines_alone() -> None:
    async with both(HOSTED) as engines:
        fleet, upstream = engines.fleet, engines.upstream
        assert not (await fleet.find(HOSTED, "acme")).external
        for _ in range(6):
            await draw(fleet, "acme", HOSTED)
        assert upstream.requests == []
        # In turn, in proportion to what they batch.
        for _ in range(6):
            await draw(fleet, "other", HOSTED)
        assert 0 < len(upstream.requests) < 6


async def test_what_may_be_thrown_away_is_drawn_on_own_engines_alone() -> None:
    async with both(HOSTED) as engines:
        fleet, upstream = engines.fleet, engines.upstream
        assert fleet.has_own(HOSTED, "other")
        for _ in range(6):
            await draw(fleet, "other", HOSTED, tentative=lambda: True)
        assert upstream.requests == []
    async with both("sim") as engines:
        fleet, upstream = engines.fleet, engines.upstream
        assert not fleet.has_own(HOSTED, "other")
        # It waits for an own engine, until it is wanted for good.
        looks = iter([True, True, True])
        assert await draw(fleet, "other", HOSTED, tentative=lambda: next(looks, False))
        assert next(looks, None) is None
        assert len(upstream.requests) == 1


async def test_room_is_counted_on_the_engines_that_a_tenant_may_use() -> None:
    async with both(HOSTED) as engines:
        fleet = engines.fleet
        own = next(r for r in fleet._able(HOSTED) if not r.attachment.models[HOSTED].external)
        batch = own.attachment.capacity
        assert fleet.capacity(HOSTED, "acme") == batch < fleet.capacity(HOSTED, "other")
        assert fleet.room(HOSTED, "acme") == room(batch, 0) < fleet.room(HOSTED, "other")
        assert fleet.room(HOSTED) == fleet.room(HOSTED, "other")
    async with both("sim") as engines:
        assert engines.fleet.room(HOSTED, "acme") == engines.fleet.capacity(HOSTED, "acme") == 0
        assert engines.fleet.room(HOSTED, "other") > 0


async def test_an_engine_that_has_become_another_ones_refuses_by_itself() -> None:
    async with both("sim") as engines:
        fleet, upstream = engines.fleet, engines.upstream
        (hosted,) = fleet._able(HOSTED)
        # What session knows of it is old.
        known = hosted.attachment.models[HOSTED]
        hosted.attachment.models = {HOSTED: replace(known, external=False)}
        assert [model.id for model in await fleet.models("acme")] == [HOSTED, "sim"]
        with pytest.raises((ServiceError, TimeoutError)):
            async with asyncio.timeout(0.6):
                await draw(fleet, "acme", HOSTED)
        assert upstream.requests == []


async def test_the_policy_may_forbid_by_default_and_allow_by_name() -> None:
    policy = EnginePolicy(Engines.OWN, {"acme": Engines.ANY})
    async with both("sim", policy) as engines:
        assert [m.id for m in await engines.fleet.models("anybody")] == ["sim"]
        assert [m.id for m in await engines.fleet.models("acme")] == [HOSTED, "sim"]
