"""`make bench-cache`: what the answer cache costs and saves, as ratios, printed last.

Part one: look-ups at several sizes with both indexes, recall against brute force, memory,
building, and at the largest size GPTCache and redisvl's SemanticCache with the same vectors
in one run. Part two: the share of time and tokens that a workload saves through the whole
platform, and the cost of a miss. Says what was measured and judges nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import platform
import sys

import psutil

from parley_loadtest.bench.http import BadAnswer
from parley_loadtest.bench.table import aligned
from parley_loadtest.cachebench import answers, endtoend, million
from parley_loadtest.cachebench.process import Failed, folder
from parley_loadtest.target import NoTarget

CANNOT_RUN = 2
_ROUNDS = 2
"""Of the workload, which needs some length to repeat itself."""


def read_options(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "parley_loadtest.cachebench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", default="1000,100000", help="entries, comma-separated")
    parser.add_argument("--rounds", type=int, default=5, help="of asking each cache in turn")
    parser.add_argument("--asked", type=int, default=100, help="look-ups of a cache in a round")
    parser.add_argument("--no-peers", action="store_true", help="Parley's alone")
    parser.add_argument(
        "--million", type=int, default=0, metavar="N", help="N vectors as well, local index alone"
    )
    parser.add_argument("--answers", type=int, default=200, help="of the workload in part two")
    parser.add_argument("--repeated", type=float, default=0.5, help="share of them asked before")
    parser.add_argument("--only", choices=["answers", "platform", "million"], help="one part")
    options = parser.parse_args(arguments)
    options.sizes = [int(size) for size in options.sizes.split(",")]
    return options


def run(options: argparse.Namespace) -> str:
    """Measure; give the report."""
    lines: list[str] = []
    last: list[str] = []
    if options.only in (None, "answers"):
        plan = answers.Plan(options.rounds, options.asked, with_peers=False)
        for size in options.sizes:
            with_peers = size == max(options.sizes) and not options.no_peers
            found = answers.measure(size, answers.Plan(plan.rounds, plan.asked, with_peers))
            lines += ["", f"{size} entries (look-ups without embedding)", ""]
            lines += [*aligned(answers.table(found)), *found.lacking]
            last += answers.ratios(found)
    if options.million:
        with folder() as work:
            lines += ["", million.run(work, options.million)]
    if options.only in (None, "platform"):
        measured = asyncio.run(endtoend.measure(options.answers, options.repeated, _ROUNDS))
        last += endtoend.ratios(measured, options.repeated)
    machine = (
        f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}, "
        f"usearch {importlib.metadata.version('usearch')}, "
        f"load average {psutil.getloadavg()[0]:.1f}"
    )
    return "\n".join(["", machine, *lines, "", "Ratios", "", *(f"  {line}" for line in last)])


def main() -> int:
    """Run the benchmark; give the exit code."""
    try:
        print(run(read_options(sys.argv[1:])))
    except (NoTarget, Failed, BadAnswer) as exc:
        print(exc, file=sys.stderr)
        return CANNOT_RUN
    return 0


if __name__ == "__main__":
    sys.exit(main())
