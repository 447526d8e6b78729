"""`make bench`: streamed tokens and requests per second through the platform.

Compares the way through gateway and session, and through session alone, with
calling the engine's gRPC directly, in interleaved rounds, as ratios; and says
what CPU time each process used per 1,000 tokens. The engine is `sim` without
any delay, so that what is left is the platform. With and without coalescing.
Prints its table last. Says what was measured and judges nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import psutil

from parley_loadtest.bench.cpu import CpuMeter
from parley_loadtest.bench.http import BadAnswer
from parley_loadtest.bench.paths import EngineWay, GatewayWay, MakeWay, SessionWay
from parley_loadtest.bench.rounds import Load, Samples, measure
from parley_loadtest.bench.table import table
from parley_loadtest.target import NO_DELAY, NoTarget, sim_stack

if TYPE_CHECKING:
    from parley_devstack.stack import Stack

MODEL = "sim"
CANNOT_RUN = 2
FAILED = 1
COALESCING = {"coalescing 20 ms": 0.02, "no coalescing": 0.0}


def read_options(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "parley_loadtest.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every load")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one way in one round")
    parser.add_argument("--concurrency", type=int, default=16, help="answers at once")
    parser.add_argument("--tokens", type=int, default=400, help="of a streamed answer")
    parser.add_argument("--short", type=int, default=8, help="tokens of a short answer")
    parser.add_argument("--only", choices=["on", "off"], help="only with coalescing on, or off")
    return parser.parse_args(arguments)


def loads_of(options: argparse.Namespace) -> list[Load]:
    """The two loads: long streamed answers, and short whole ones."""
    common = {"concurrency": options.concurrency, "seconds": options.seconds}
    return [
        Load("streamed tokens", tokens=options.tokens, streamed=True, **common),
        Load("short requests", tokens=options.short, streamed=False, **common),
    ]


def ways_of(stack: Stack) -> Mapping[str, MakeWay]:
    """The ways that are compared; the first is what the others are compared with."""
    engine = stack.plan(stack.names_of("inference")[0]).grpc
    session = stack.plan(stack.names_of("session")[0]).grpc
    return {
        "engine": lambda: EngineWay(engine, MODEL),
        "session": lambda: SessionWay(session),
        "gateway": lambda: GatewayWay(stack.url),
    }


async def bench(options: argparse.Namespace) -> str:
    """Measure; give the table."""
    results: list[tuple[str, list[Samples]]] = []
    for setting, coalesce in COALESCING.items():
        if options.only and (options.only == "on") != bool(coalesce):
            continue
        print(f"{setting}: starting the platform on sim…", flush=True)
        async with sim_stack(replace(NO_DELAY, coalesce=coalesce), model_id=MODEL) as stack:
            pids = {name: pid for name in stack.names if (pid := stack.pid(name)) is not None}
            measured = await measure(
                ways_of(stack), loads_of(options), options.rounds, CpuMeter(pids)
            )
        results.append((setting, measured))
    memory = psutil.virtual_memory().total / 2**30
    load = psutil.getloadavg()[0]
    machine = (
        f"\n{platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}, load average {load:.1f}; {options.concurrency} at "
        f"once, {options.tokens} tokens streamed, {options.short} in a short answer, "
        f"{options.rounds} rounds of {options.seconds:g} s"
    )
    return machine + table(results)


def main() -> int:
    """Run the benchmark; give the exit code."""
    try:
        print(asyncio.run(bench(read_options(sys.argv[1:]))))
    except NoTarget as exc:
        print(exc, file=sys.stderr)
        return CANNOT_RUN
    except (BadAnswer, grpc.aio.AioRpcError, ExceptionGroup) as exc:
        first = exc.exceptions[0] if isinstance(exc, ExceptionGroup) else exc
        print(f"The benchmark cannot go on: {first}", file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
