"""`make simulate`: the routing table and the scaling table, from seeds."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from parley_simulation import routing, scaling

Item = TypeVar("Item")
Found = TypeVar("Found")


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(prog="parley_simulation", description=__doc__)
    parser.add_argument("table", nargs="?", choices=["routing", "scaling", "both"], default="both")
    parser.add_argument("--engines", type=int, default=200, help="of the routing table")
    parser.add_argument("--rate", type=float, default=routing.RATE, help="chats/s an engine")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--starts", type=float, nargs="+", default=[30.0, 120.0, 300.0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    began = time.monotonic()
    with ProcessPoolExecutor(asked.jobs) as pool:

        def run_all(run: Callable[[Item], Found], items: Sequence[Item], /) -> Sequence[Found]:
            return list(pool.map(run, items))

        if asked.table != "scaling":
            print(f"\nRouting: {asked.engines} engines, seeds {asked.seeds}\n")
            print(routing.report(asked.engines, asked.seeds, asked.rate, run_all), flush=True)
        if asked.table != "routing":
            print(f"\nScaling: an hour, seed {asked.seeds[0]}\n")
            print(scaling.report(asked.starts, asked.seeds[0], run_all))
    print(f"\nin {time.monotonic() - began:.0f} s on {asked.jobs} processes")


if __name__ == "__main__":
    main()
