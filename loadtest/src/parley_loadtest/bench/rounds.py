"""Measuring in interleaved rounds, so that a machine's moods strike all ways alike."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from parley_loadtest.bench.cpu import CpuMeter, difference
from parley_loadtest.bench.paths import MakeWay, Way, question


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked: so many at once, answers of so many tokens, for so many seconds."""

    name: str
    concurrency: int
    tokens: int
    seconds: float
    streamed: bool


@dataclass(slots=True)
class Sample:
    """One way in one round."""

    seconds: float
    answers: int
    tokens: int
    pieces: int
    cpu: dict[str, float]

    @property
    def tokens_per_second(self) -> float:
        """Tokens of answers that came whole, per second."""
        return self.tokens / self.seconds

    @property
    def answers_per_second(self) -> float:
        """Answers that came whole, per second."""
        return self.answers / self.seconds


@dataclass(slots=True)
class Samples:
    """All rounds of one load, by way."""

    load: Load
    by_way: dict[str, list[Sample]] = field(default_factory=dict)

    def ratio(self, way: str, base: str) -> tuple[float, float, float]:
        """Median, least and most of the rounds' ratios of answers (and so tokens) per second."""
        ratios = [
            one.tokens_per_second / other.tokens_per_second
            for one, other in zip(self.by_way[way], self.by_way[base], strict=True)
            if other.tokens
        ]
        if not ratios:
            return (0.0, 0.0, 0.0)
        return statistics.median(ratios), min(ratios), max(ratios)

    def cpu_per_thousand(self, way: str, process: str) -> float:
        """CPU seconds of a process per 1,000 tokens, over all rounds."""
        samples = self.by_way[way]
        tokens = sum(sample.tokens for sample in samples)
        used = sum(sample.cpu.get(process, 0.0) for sample in samples)
        return used / tokens * 1000 if tokens else 0.0


def order(ways: Sequence[str], round_: int) -> list[str]:
    """Whose turn it is when: each round begins with another one."""
    shift = round_ % len(ways)
    return [*ways[shift:], *ways[:shift]]


async def measure(
    make: Mapping[str, MakeWay], loads: Iterable[Load], rounds: int, meter: CpuMeter
) -> list[Samples]:
    """Measure every load by every way, in interleaved rounds.

    Raises:
        BadAnswer: an answer did not come as asked.
    """
    results = []
    for load in loads:
        ways = {
            name: [make_one() for _ in range(load.concurrency)] for name, make_one in make.items()
        }
        samples = Samples(load, {name: [] for name in ways})
        try:
            for name, connections in ways.items():
                # Connect and warm up first: that is not what is measured.
                await asyncio.gather(
                    *(one.answer(question(), 4, streamed=load.streamed) for one in connections)
                )
                print(f"  {load.name}: {name} warmed up", flush=True)
            for round_ in range(rounds):
                for name in order(list(ways), round_):
                    samples.by_way[name].append(await _sample(ways[name], load, meter))
                print(f"  {load.name}: round {round_ + 1} of {rounds}", flush=True)
        finally:
            for connections in ways.values():
                for one in connections:
                    await one.close()
        results.append(samples)
    return results


async def _sample(ways: Sequence[Way], load: Load, meter: CpuMeter) -> Sample:
    sample = Sample(0.0, 0, 0, 0, {})
    began, before = time.monotonic(), meter.read()
    until = began + load.seconds

    async def keep_asking(way: Way) -> None:
        while time.monotonic() < until:
            counted = await way.answer(question(), load.tokens, streamed=load.streamed)
            sample.answers += 1
            sample.tokens += counted.tokens
            sample.pieces += counted.pieces

    async with asyncio.TaskGroup() as group:
        for way in ways:
            group.create_task(keep_asking(way))
    # Answers begun within the time are waited for, so the time ends with the last.
    sample.seconds = time.monotonic() - began
    sample.cpu = difference(before, meter.read())
    return sample
