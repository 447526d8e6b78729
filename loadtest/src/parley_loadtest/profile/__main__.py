"""`make profile`: where the time of an answer, and of a token, goes in each process.

Starts the platform on `sim` without any delay, keeps asking through the gateway, and
samples the stacks of gateway, session, cache and inference from outside (py-spy). Prints
for each load and process its CPU time an answer, shared out by the library that was at
work and by our own functions with what they called. The stacks are kept in a folder, for
speedscope or any other flame graph.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from parley_loadtest.bench.cpu import CpuMeter, difference
from parley_loadtest.bench.http import BadAnswer
from parley_loadtest.bench.paths import GatewayWay, question
from parley_loadtest.profile.sampling import NoSampler, sampled
from parley_loadtest.profile.stacks import Summary, summed
from parley_loadtest.target import NO_DELAY, NoTarget, sim_stack

if TYPE_CHECKING:
    from parley_devstack.stack import Stack

KINDS = ("gateway", "session", "cache", "inference")
CANNOT_RUN = 2
FAILED = 1


def read_options(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "parley_loadtest.profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--concurrency", type=int, default=16, help="answers at once")
    parser.add_argument("--tokens", type=int, default=400, help="of a streamed answer")
    parser.add_argument("--short", type=int, default=8, help="tokens of a short answer")
    parser.add_argument("--rate", type=int, default=200, help="samples a second")
    parser.add_argument("--top", type=int, default=16, help="rows of a table")
    parser.add_argument("--coalesce", type=float, default=0.02, help="seconds; 0: none")
    parser.add_argument("--out", type=Path, default=Path("reports/profile"), help="folder")
    return parser.parse_args(arguments)


async def profile(options: argparse.Namespace) -> str:
    """Sample every load; give the tables."""
    tables = []
    async with sim_stack(replace(NO_DELAY, coalesce=options.coalesce), model_id="sim") as stack:
        pids = {
            kind: pid
            for kind in KINDS
            for name in stack.names_of(kind)
            if (pid := stack.pid(name)) is not None
        }
        for load, tokens, streamed in (
            ("streamed", options.tokens, True),
            ("short", options.short, False),
        ):
            ways = [GatewayWay(stack.url) for _ in range(options.concurrency)]
            try:
                # Connect and warm up first.
                await _ask(ways, 1.0, 4, streamed=streamed)
                files = {kind: options.out / f"{load}-{kind}.txt" for kind in pids}
                meter = CpuMeter(_all_pids(stack))
                async with sampled(
                    {files[kind]: pid for kind, pid in pids.items()},
                    seconds=options.seconds,
                    rate=options.rate,
                ):
                    before = meter.read()
                    answers = await _ask(ways, options.seconds, tokens, streamed=streamed)
                    used = difference(before, meter.read())
            finally:
                for way in ways:
                    await way.close()
            tables.append(
                _table(
                    f"{load} answers of {tokens} tokens",
                    answers,
                    used,
                    options.top,
                    {kind: summed(_lines(file)) for kind, file in files.items()},
                )
            )
    return "\n".join([*tables, f"\nThe stacks are in {options.out}."])


async def _ask(ways: list[GatewayWay], seconds: float, tokens: int, *, streamed: bool) -> int:
    until = time.monotonic() + seconds
    answers = 0

    async def keep_asking(way: GatewayWay) -> None:
        nonlocal answers
        while time.monotonic() < until:
            await way.answer(question(), tokens, streamed=streamed)
            answers += 1

    async with asyncio.TaskGroup() as group:
        for way in ways:
            group.create_task(keep_asking(way))
    return answers


def _all_pids(stack: Stack) -> Mapping[str, int]:
    return {name: pid for name in stack.names if (pid := stack.pid(name)) is not None}


def _lines(file: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return file.read_text().splitlines()
    return []


def _table(
    title: str,
    answers: int,
    used: Mapping[str, float],
    top: int,
    summaries: Mapping[str, Summary],
) -> str:
    lines = [f"\n{title}: {answers}", "", "CPU milliseconds an answer"]
    for name, seconds in used.items():
        lines.append(f"  {name:14} {1000 * seconds / max(1, answers):8.2f}")
    for kind, summary in summaries.items():
        seconds = sum(value for name, value in used.items() if name.startswith(kind))
        each = 1000 * seconds / max(1, answers) / max(1, summary.samples)
        lines += ["", f"{kind}: {title}, {summary.samples} samples"]
        for heading, counts in (
            ("at work", summary.by_library),
            ("with what it called", summary.by_function),
        ):
            lines.append(f"   share  ms/answer  {heading}")
            rows = sorted(counts.items(), key=lambda row: -row[1])[:top]
            for name, count in rows:
                lines.append(
                    f"  {100 * count / summary.samples:5.1f}%  {each * count:9.3f}  {name}"
                )
    return "\n".join(lines)


def main() -> int:
    """Run; give the exit code."""
    try:
        print(asyncio.run(profile(read_options(sys.argv[1:]))))
    except (NoTarget, NoSampler) as exc:
        print(exc, file=sys.stderr)
        return CANNOT_RUN
    except (BadAnswer, ExceptionGroup) as exc:
        first = exc.exceptions[0] if isinstance(exc, ExceptionGroup) else exc
        print(f"The profile cannot go on: {first}", file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
