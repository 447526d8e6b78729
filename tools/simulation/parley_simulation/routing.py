"""The routing table: the strategies on the same chats, without and with engines that fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parley_session.fleet.choosing import Strategy
from parley_simulation.results import Result, RunAll, middle, result, spread, table
from parley_simulation.workload import chats
from parley_simulation.world import World, WorldOptions

WARM_UP = 60.0
MEASURED = 60.0
# Chats that begin a second, for each engine.
RATE = 0.38


@dataclass(frozen=True, slots=True)
class Cell:
    """One simulation of one fleet for one seed."""

    engines: int
    strategy: Strategy
    faults: bool
    rate: float
    seed: int


def run(cell: Cell) -> Result:
    """Simulate it."""
    world = World(WorldOptions(engines=cell.engines, strategy=cell.strategy, seed=cell.seed))
    total = WARM_UP + MEASURED
    starts = cell.rate * cell.engines
    world.play(chats(world.options.chats, lambda _: starts, starts, total, cell.seed))
    if cell.faults:
        _plan_faults(world)
    # Answers that arrived in time are waited for.
    world.events.run(total + 60)
    return result(world.finished, WARM_UP, total)


def _plan_faults(world: World) -> None:
    """Within the measured time: of a hundred engines, two crash, one freezes, one refuses."""
    addresses = list(world.engines)
    count = max(1, len(addresses) // 100)
    for number in range(count):
        first, second, third, fourth = addresses[4 * number : 4 * number + 4]
        at = WARM_UP + 5 + number
        world.events.at(at, lambda a=first: world.crash(a, 30))  # type: ignore[misc]
        world.events.at(at + 10, lambda a=second: world.crash(a, 30))  # type: ignore[misc]
        world.events.at(at + 5, lambda a=third: world.freeze(a, 30))  # type: ignore[misc]
        world.events.at(at, lambda a=fourth: world.refuse(a, 40))  # type: ignore[misc]


HEAD = (
    "strategy",
    "engines",
    "TTFT p50",
    "p99",
    "TPOT p50",
    "p99",
    "goodput",
    "within SLO",
    "prefix hits",
)


def report(engines: int, seeds: Sequence[int], rate: float, run_all: RunAll) -> str:
    """Return the table, a line a strategy: the median over the seeds."""
    kinds = [(faults, strategy) for faults in (False, True) for strategy in Strategy]
    cells = [Cell(engines, s, faults, rate, seed) for faults, s in kinds for seed in seeds]
    results = run_all(run, cells)
    lines = []
    for number, (faults, strategy) in enumerate(kinds):
        found = results[number * len(seeds) : (number + 1) * len(seeds)]
        lines.append(
            [
                strategy.value,
                "some fail" if faults else "none fails",
                f"{middle(found, 'ttft_p50') * 1000:.0f} ms",
                f"{middle(found, 'ttft_p99') * 1000:.0f} ms",
                f"{middle(found, 'tpot_p50') * 1000:.1f} ms",
                f"{middle(found, 'tpot_p99') * 1000:.1f} ms",
                f"{middle(found, 'goodput'):.1f}/s ± {spread(found, 'goodput') / 2:.1f}",
                f"{middle(found, 'slo_share'):.1%}",
                f"{middle(found, 'prefix_hits'):.1%}",
            ]
        )
    return table(HEAD, lines)
