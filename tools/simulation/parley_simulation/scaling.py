"""The scaling table: the recommended signal against CPU and plain waiting, on bursts.

An hour of chats whose rate follows shapes that operators record: a morning that rises, a
news item (four times the rate within a minute, fading over ten), and a class that begins every
twenty minutes. Each with minute-to-minute noise. Engines start in 30, 120 and 300 s.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from parley_simulation.autoscaler import Autoscaler, Signal, by_cpu, by_demand, by_waiting
from parley_simulation.results import RunAll, result, table
from parley_simulation.workload import Rate, chats
from parley_simulation.world import World, WorldOptions

SECONDS = 3600.0
# Engines at the start, and chats a second that they bear well.
ENGINES = 4
BASE = 0.9
# With a start of minutes nobody gets a first token within a second; what is promised is less.
SLO_TTFT = 5.0
SLO_TPOT = 0.06

SIGNALS: Mapping[str, Signal] = {
    "engine demand / 0.7": partial(by_demand, target=0.7),
    "engine demand / 0.5": partial(by_demand, target=0.5),
    "CPU": by_cpu,
    "waiting": by_waiting,
}


def _morning(now: float) -> float:
    return BASE * (1 + 3 * min(1.0, now / (SECONDS / 2)))


def _news(now: float) -> float:
    since = now - 900
    rise = 0.0 if since < 0 else min(1.0, since / 60) * math.exp(-max(0.0, since - 60) / 600)
    return BASE * (1 + 3 * rise)


def _classes(now: float) -> float:
    return BASE * (1 + 2.5 * (now % 1200 < 240))


SHAPES: Mapping[str, Rate] = {"morning": _morning, "news": _news, "classes": _classes}


def noisy(rate: Rate, seed: int) -> Rate:
    """Return a rate with noise that lasts for a minute at a time."""
    rng = random.Random(seed)
    noise = [rng.lognormvariate(-0.02, 0.2) for _ in range(int(SECONDS / 60) + 2)]
    return lambda now: rate(now) * noise[int(now / 60)]


@dataclass(frozen=True, slots=True)
class Cell:
    """One simulation: names of a signal and a shape, seconds that an engine starts in."""

    signal: str
    shape: str
    start_seconds: float
    seed: int


def run(cell: Cell) -> list[float]:
    """Simulate an hour; share within the SLO, p99 TTFT, replica-hours, turns, most replicas."""
    world = World(WorldOptions(engines=ENGINES, seed=cell.seed))
    scaler = Autoscaler(world, SIGNALS[cell.signal], cell.start_seconds)
    rate = noisy(SHAPES[cell.shape], cell.seed)
    world.play(chats(world.options.chats, rate, 12 * BASE, SECONDS, cell.seed))
    world.events.run(SECONDS + 600)
    found = result(world.finished, 0, SECONDS, SLO_TTFT, SLO_TPOT)
    did = scaler.scaled
    return [found.slo_share, found.ttft_p99, did.replica_seconds / 3600, did.turns, did.most]


def report(starts: Sequence[float], seed: int, run_all: RunAll) -> str:
    """Return the table, a line for each start-up time and signal: the mean over the shapes."""
    cells = [Cell(n, shape, s, seed) for s in starts for n in SIGNALS for shape in SHAPES]
    found = dict(zip(cells, run_all(run, cells), strict=True))
    lines = []
    for start in starts:
        for name in SIGNALS:
            own = [found[Cell(name, shape, start, seed)] for shape in SHAPES]
            slo, ttft, hours, turns, most = (sum(c) / len(own) for c in zip(*own, strict=True))
            each = " / ".join(f"{line[0]:.1%}" for line in own)
            lines.append(
                [
                    f"{start:.0f} s",
                    name,
                    f"{slo:.1%} ({each})",
                    f"{ttft:.1f} s",
                    f"{hours:.1f}",
                    f"{turns:.1f}",
                    f"{most:.0f}",
                ]
            )
    return table(HEAD, lines)


HEAD = (
    "start-up",
    "signal",
    f"within SLO ({' / '.join(SHAPES)})",
    "TTFT p99",
    "replica-hours",
    "turns",
    "most replicas",
)
