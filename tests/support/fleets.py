"""A fleet over engines of the test's own, and what it chose."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from parley_kit.replicas import StaticResolver
from parley_session.fleet.base import Draw
from parley_session.fleet.grpc_fleet import FleetOptions, GrpcFleet
from support.inference import generate_request, sim_replica
from support.poll import until


@contextlib.asynccontextmanager
async def fleet_of(
    *addresses: str, expected: int | None = None, **options: Any
) -> AsyncIterator[GrpcFleet]:
    """A fleet that sees these engines, or `expected` of them."""
    fleet = GrpcFleet(StaticResolver(addresses), FleetOptions(**options))
    count = len(addresses) if expected is None else expected
    await fleet.start()
    try:
        await until(lambda: len(fleet._able("sim")) == count, what="all engines")
        yield fleet
    finally:
        await fleet.stop()


@contextlib.asynccontextmanager
async def engines(count: int, **settings: Any) -> AsyncIterator[list[Any]]:
    """So many replicas on the simulator."""
    async with contextlib.AsyncExitStack() as stack:
        started = [await stack.enter_async_context(sim_replica(**settings)) for _ in range(count)]
        yield [replica for replica, _ in started]


def address(replica: Any) -> str:
    """Where a replica listens."""
    return f"127.0.0.1:{replica.port}"


async def draw(fleet: GrpcFleet, text: str = "hello", chat: str = "chat", **options: Any) -> str:
    """Draw one answer to its end; its text."""
    deadline = asyncio.get_running_loop().time() + 20
    request = generate_request(text, **options)
    pieces = [
        event.chunk.text
        async for event in fleet.draw(Draw(request, os.urandom(4).hex(), deadline, chat))
    ]
    return "".join(pieces)


def chat_at(fleet: GrpcFleet, wanted: str) -> str:
    """A chat that goes to this engine first, as nobody is busy."""
    candidates = fleet._candidates(fleet._able("sim"))
    for number in range(1000):
        choice = fleet._chooser.choose(f"chat-{number}", candidates)
        if choice is not None and choice.address == wanted:
            return f"chat-{number}"
    raise AssertionError(f"no chat goes to {wanted}")


def choices(fleet: GrpcFleet) -> Counter[str]:
    """What the engines of the fleet were chosen for, from now on."""
    counted: Counter[str] = Counter()
    choose = fleet._chooser.choose

    def counting(key: str, candidates: Any) -> Any:
        choice = choose(key, candidates)
        if choice is not None:
            counted[choice.address] += 1
        return choice

    fleet._chooser.choose = counting  # type: ignore[method-assign]
    return counted
