"""`make bench-peers`: the platform beside LiteLLM's proxy, and beside vLLM's own server.

Prints how long it will take first, and the ratios last. Says what was measured and
judges nothing; `--rounds` and `--seconds` make it longer, and surer.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
from pathlib import Path

import psutil

from parley_loadtest.bench.http import BadAnswer
from parley_loadtest.peers import litellm, vllm
from parley_loadtest.target import NoTarget

CANNOT_RUN = 2
FAILED = 1


def read_options(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "parley_loadtest.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("peer", choices=["litellm", "vllm"])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every load")
    parser.add_argument("--seconds", type=float, default=10.0, help="of one way in one round")
    parser.add_argument("--cache", choices=["use", "bypass"], default="use", help="of Parley")
    group = parser.add_argument_group("litellm")
    group.add_argument("--peers", type=Path, default=Path(".venv-peers"), help="its environment")
    group.add_argument("--concurrency", type=int, default=16, help="answers at once")
    group.add_argument("--tokens", type=int, default=400, help="of a streamed answer")
    group.add_argument("--short", type=int, default=8, help="tokens of a short answer")
    group.add_argument("--cores", type=int, default=1, help="budget of each side, engine included")
    group.add_argument("--only", choices=["paced", "unpaced", "on", "off"], help="these settings")
    group = parser.add_argument_group("vllm")
    group.add_argument("--vllm-tokens", type=int, default=64, help="of an answer, at most")
    group.add_argument(
        "--streams", type=int, nargs="+", default=list(vllm.STREAMS), help="answers at once"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("there must be rounds, and time for them")
    return options


async def bench(options: argparse.Namespace) -> str:
    """Measure; give the tables."""
    seconds = (litellm if options.peer == "litellm" else vllm).seconds_of(options)
    print(f"This takes about {seconds / 60:.0f} minutes on a quiet machine.", flush=True)
    begun_under = psutil.getloadavg()[0]
    run = litellm.bench_litellm if options.peer == "litellm" else vllm.bench_vllm
    tables = await run(options)
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"\n{platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, Python"
        f" {platform.python_version()}; load average {begun_under:.1f} before,"
        f" {psutil.getloadavg()[0]:.1f} after; {options.rounds} rounds of {options.seconds:g} s"
        + tables
    )


def main() -> int:
    """Run the benchmark; give the exit code."""
    try:
        print(asyncio.run(bench(read_options(sys.argv[1:]))))
    except NoTarget as exc:
        print(exc, file=sys.stderr)
        return CANNOT_RUN
    except (BadAnswer, OSError, ExceptionGroup) as exc:
        first = exc.exceptions[0] if isinstance(exc, ExceptionGroup) else exc
        print(f"The benchmark cannot go on: {first}", file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
