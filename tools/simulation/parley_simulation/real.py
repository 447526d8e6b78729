"""`make simulate-check`: the same chats through four real `sim` engines and four virtual ones.

The engines are processes; the fleet that places requests on them is session's own, with real
load reports. The virtual ones are given the pace that single requests found on the real ones just
before. What differs is printed, as the error of the simulation; it grows with whatever else the
machine does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields, replace
from math import inf
from statistics import median
from zlib import crc32

from parley.inference.v1 import inference_pb2 as pb

from parley_devstack.ports import free_ports
from parley_inference.engine.sim.tokenizer import WORDS
from parley_kit.replicas import StaticResolver
from parley_session.fleet.base import Draw
from parley_session.fleet.choosing import Strategy
from parley_session.fleet.grpc_fleet import FleetOptions, GrpcFleet
from parley_simulation.engine import EngineModel, Request
from parley_simulation.results import Result, result, table
from parley_simulation.workload import Chat, ChatModel, Turn, chats
from parley_simulation.world import World, WorldOptions

ENGINES = 4
MODEL = EngineModel(
    batch=6,
    first=0.3,
    prefill_tokens_per_second=inf,
    itl=0.1,
    itl_more=0.0,
    cache_tokens=1_000_000,
)
CHATS = ChatModel(turns=4.0, system=200, question=40.0, answer=25.0, think=2.0)
RATE = 1.8
SECONDS = 50.0
WARM_UP = 10.0
START_SECONDS = 120.0
# What counts as good here.
SLO_TTFT = 1.0
SLO_TPOT = 0.2
# Requests that find out the pace, one after the other.
PROBES = 5
# What the chat template adds: two tokens a message, two a prompt.
MESSAGE_TOKENS = 2


async def main(seed: int, strategies: Sequence[Strategy]) -> None:
    """Run both and print how far they lie apart."""
    plan = list(chats(CHATS, lambda _: RATE, RATE, SECONDS, seed))
    lines = []
    for strategy in strategies:
        finished, model = await _real(plan, strategy)
        real = result(finished, WARM_UP, SECONDS, SLO_TTFT, SLO_TPOT)
        finished = _virtual(plan, strategy, model, seed)
        virtual = result(finished, WARM_UP, SECONDS, SLO_TTFT, SLO_TPOT)
        lines += [_line(strategy, field.name, real, virtual) for field in fields(Result)]
    print(f"\n{ENGINES} sim engines, seed {seed}, load average {os.getloadavg()[0]:.1f}\n")
    print(table(("strategy", "figure", "real", "simulated", "error"), lines))


def _line(strategy: Strategy, name: str, real: Result, virtual: Result) -> list[str]:
    was, is_ = float(getattr(real, name)), float(getattr(virtual, name))
    error = f"{is_ / was - 1:+.1%}" if was else "-"
    return [strategy.value, name, f"{was:.4g}", f"{is_:.4g}", error]


def _virtual(
    plan: Sequence[Chat], strategy: Strategy, model: EngineModel, seed: int
) -> list[Request]:
    options = WorldOptions(
        engines=ENGINES,
        sessions=1,
        strategy=strategy,
        model=model,
        chats=CHATS,
        seed=seed,
        gated=False,
    )
    world = World(options)
    world.play(plan)
    world.events.run(SECONDS + 300)
    return world.finished


# the real ones --------------------------------------------------------------------


async def _real(plan: Sequence[Chat], strategy: Strategy) -> tuple[list[Request], EngineModel]:
    """Play the chats; the answers, and the pace that was found before."""
    async with _engines() as addresses:
        fleet = GrpcFleet(StaticResolver(addresses), FleetOptions(strategy=strategy))
        await fleet.start()
        try:
            async with asyncio.timeout(START_SECONDS):
                await _until_ready(fleet)
            model = await _probed(fleet)
            finished: list[Request] = []
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for chat in plan:
                    group.create_task(_converse(fleet, chat, began, finished))
            return finished, model
        finally:
            await fleet.stop()


async def _until_ready(fleet: GrpcFleet) -> None:
    while fleet.capacity("sim") < ENGINES * MODEL.batch:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.1)


async def _probed(fleet: GrpcFleet) -> EngineModel:
    """Return the model with the pace of requests that have the fleet for themselves."""
    alone: list[Request] = []
    began = time.monotonic()
    for number in range(PROBES):
        await _converse(fleet, Chat(f"probe-{number}", 0.0, (Turn(0.0, 40, 25),)), began, alone)
    return replace(MODEL, first=median(r.ttft for r in alone), itl=median(r.tpot for r in alone))


async def _converse(fleet: GrpcFleet, chat: Chat, began: float, finished: list[Request]) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(max(0.0, began + chat.at - time.monotonic()))
    messages = [_message(pb.ROLE_SYSTEM, CHATS.system - 2 * MESSAGE_TOKENS)]
    for number, turn in enumerate(chat.turns):
        await asyncio.sleep(turn.think)
        messages.append(
            _message(pb.ROLE_USER, turn.question - 2 * MESSAGE_TOKENS, f"{chat.id} {number}")
        )
        request = pb.GenerateRequest(
            model="sim",
            messages=messages,
            sampling=pb.SamplingOptions(max_tokens=turn.answer, temperature=0.0, top_p=1.0),
        )
        done = Request(chat.id, 0, turn.answer, time.monotonic() - began)
        text = ""
        draw = Draw(request, f"{chat.id}-{number}", loop.time() + 120, chat.id)
        async for event in fleet.draw(draw):
            if event.HasField("started"):
                done.first_at = time.monotonic() - began
                done.prompt_tokens = event.started.prompt_tokens
                done.cached_tokens = event.started.cached_prompt_tokens
            elif event.HasField("chunk"):
                text += event.chunk.text
        done.ended_at = time.monotonic() - began
        finished.append(done)
        messages.append(pb.ChatMessage(role=pb.ROLE_ASSISTANT, content=text))


def _message(role: pb.Role.ValueType, tokens: int, salt: str = "") -> pb.ChatMessage:
    """Make a text of so many tokens, another one for another salt."""
    rng = random.Random(crc32(salt.encode()))
    words = [rng.choice(WORDS) for _ in range(max(1, tokens))]
    return pb.ChatMessage(role=role, content="".join(words))


@contextlib.asynccontextmanager
async def _engines() -> AsyncIterator[list[str]]:
    """Start the engines as processes; they end with the block."""
    ports = free_ports(2 * ENGINES)
    processes = []
    try:
        for number in range(ENGINES):
            settings = {
                "ENGINE": "sim",
                "PORT": str(ports[2 * number]),
                "ADMIN_PORT": str(ports[2 * number + 1]),
                "SIM_TTFT": str(MODEL.first),
                "SIM_ITL": str(MODEL.itl),
                "SIM_CONCURRENCY": str(MODEL.batch),
                "SIM_ANSWER_TOKENS": "0",
                "COALESCE_SECONDS": "0",
            }
            processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "parley_inference"),
                    env={**os.environ, **{f"PARLEY_INFERENCE_{k}": v for k, v in settings.items()}},
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )
            )
        yield [f"127.0.0.1:{port}" for port in ports[::2]]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


if __name__ == "__main__":
    names = [Strategy(name) for name in sys.argv[2:]] or list(Strategy)
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1, names))
