"""Interleaved rounds of timed answers, and what they come to."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from parley_loadtest.bench.cpu import CpuMeter, difference
from parley_loadtest.bench.paths import question
from parley_loadtest.bench.rounds import order
from parley_loadtest.peers.ways import Timed, TimedWay

# The least share of the time that an interval of a median holds it.
COVERAGE = 0.9
_WARM_UP_TOKENS = 4


@dataclass(frozen=True, slots=True)
class PeerLoad:
    """What is asked: `concurrency` answers at once, for `seconds`, of `tokens` each."""

    name: str
    tokens: int
    concurrency: int
    seconds: float
    streamed: bool = True


@dataclass(slots=True)
class PeerSample:
    """One way in one round."""

    seconds: float
    answers: list[Timed]
    cpu: Mapping[str, float]

    @property
    def tokens(self) -> int:
        """Tokens of answers that came whole."""
        return sum(answer.tokens for answer in self.answers)

    @property
    def tokens_per_second(self) -> float:
        """Of answers that came whole."""
        return self.tokens / self.seconds

    @property
    def answers_per_second(self) -> float:
        """Those that came whole."""
        return len(self.answers) / self.seconds

    def first(self, share: float) -> float:
        """Seconds to the first text: of `share` of the answers it was this or less."""
        times = sorted(answer.first for answer in self.answers)
        return times[min(len(times) - 1, math.ceil(share * len(times)) - 1)] if times else 0.0


@dataclass(slots=True)
class PeerSamples:
    """All rounds of one load, by way."""

    load: PeerLoad
    by_way: dict[str, list[PeerSample]] = field(default_factory=dict)

    def median(self, way: str, of: Callable[[PeerSample], float]) -> float:
        """The median of the rounds."""
        return statistics.median(of(sample) for sample in self.by_way[way])

    def ratio(self, way: str, base: str, of: Callable[[PeerSample], float]) -> Interval:
        """Round by round, so that both saw the same machine."""
        pairs = zip(self.by_way[way], self.by_way[base], strict=True)
        return interval([of(one) / of(other) for one, other in pairs if of(other) > 0])

    def cpu_per_thousand(self, way: str, counts: Callable[[str], bool]) -> float:
        """CPU seconds per 1,000 tokens of the processes that `counts` names."""
        samples = self.by_way[way]
        tokens = sum(sample.tokens for sample in samples)
        used = sum(v for sample in samples for name, v in sample.cpu.items() if counts(name))
        return 1000 * used / tokens if tokens else 0.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A median, and where the true one lies with probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}-{self.high:.3f})"


def interval(values: Sequence[float]) -> Interval:
    """The median of values with its interval by order statistics, which assumes nothing.

    The narrowest that covers `COVERAGE`; with fewer than five values none does, and it is
    their whole range.
    """
    if not values:
        return Interval(0.0, 0.0, 0.0, 0.0)
    ordered, count = sorted(values), len(values)
    skipped, coverage = 0, _coverage(count, 0)
    while skipped + 1 < (count + 1) // 2 and _coverage(count, skipped + 1) >= COVERAGE:
        skipped += 1
        coverage = _coverage(count, skipped)
    return Interval(
        statistics.median(ordered), ordered[skipped], ordered[count - 1 - skipped], coverage
    )


def _coverage(count: int, skipped: int) -> float:
    """Chance that the true median lies within `count` values, `skipped` left out at each end."""
    outside = sum(math.comb(count, below) for below in range(skipped + 1))
    return 1.0 - 2.0 * outside / float(2**count)


async def measure_peers(
    make: Mapping[str, Callable[[], TimedWay]],
    loads: Iterable[PeerLoad],
    rounds: int,
    meter: CpuMeter,
) -> list[PeerSamples]:
    """Measure every load by every way, in interleaved rounds. Raises BadAnswer."""
    results = []
    for load in loads:
        ways = {name: [one() for _ in range(load.concurrency)] for name, one in make.items()}
        samples = PeerSamples(load, {name: [] for name in ways})
        try:
            for connections in ways.values():
                await asyncio.gather(
                    *(
                        way.answer(question(), _WARM_UP_TOKENS, streamed=load.streamed)
                        for way in connections
                    )
                )
            for round_ in range(rounds):
                for name in order(list(ways), round_):
                    samples.by_way[name].append(await _sample(ways[name], load, meter))
                print(f"  {load.name}: round {round_ + 1} of {rounds}", flush=True)
        finally:
            for connections in ways.values():
                for way in connections:
                    await way.close()
        results.append(samples)
    return results


async def _sample(ways: Sequence[TimedWay], load: PeerLoad, meter: CpuMeter) -> PeerSample:
    answers: list[Timed] = []
    began, before = time.monotonic(), meter.read()
    until = began + load.seconds

    async def keep_asking(way: TimedWay) -> None:
        while time.monotonic() < until:
            answers.append(await way.answer(question(), load.tokens, streamed=load.streamed))

    async with asyncio.TaskGroup() as group:
        for way in ways:
            group.create_task(keep_asking(way))
    # Answers begun within the time are waited for, so the time ends with the last.
    return PeerSample(time.monotonic() - began, answers, difference(before, meter.read()))
