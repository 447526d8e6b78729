"""Part one: look-ups, memory and building, at several sizes, and beside the peers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parley_loadtest.cachebench import peers, vectors
from parley_loadtest.cachebench.process import Failed, Subject, folder, server, valkey

_MIB = 1024 * 1024
_ROOM = ("--maxmemory", "16gb")
LOCAL, SETS, GPTCACHE, REDISVL = "parley local", "parley vector sets", "GPTCache", "redisvl"


@dataclass(slots=True)
class Figures:
    """Of one cache at one size."""

    fill_seconds: float | None = None
    build_seconds: float | None = None
    index_bytes: int = 0
    redis_bytes: int = 0
    times: list[float] = field(default_factory=list)
    hits: int = 0
    index_times: list[float] = field(default_factory=list)
    found: int = 0
    sought: int = 0

    def milliseconds(self, percent: float) -> float:
        """Of a look-up, embedding apart."""
        return 1000 * float(np.percentile(self.times, percent)) if self.times else 0.0

    @property
    def recall(self) -> float | None:
        """Share of the true nearest that the index names; None: not measured."""
        return self.found / self.sought if self.sought else None


@dataclass(slots=True)
class Results:
    """Of one size, and what could not be measured, in sentences."""

    size: int
    figures: dict[str, Figures]
    lacking: list[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    rounds: int
    asked: int
    with_peers: bool


def measure(size: int, plan: Plan) -> Results:
    """Fill every cache with the same vectors, then ask them in turn, round by round."""
    results = Results(size, {}, [])
    with folder() as work, contextlib.ExitStack() as stack:
        vectors.write(work, size, plan.rounds * plan.asked)
        asking = _parley(work, stack, results)
        if plan.with_peers:
            asking |= _peers(work, stack, results)
        for round_ in range(plan.rounds):
            names = list(asking)
            for name in [*names[round_ % len(names) :], *names[: round_ % len(names)]]:
                _ask(results.figures[name], *asking[name], round_ * plan.asked, plan.asked)
            print(f"  {size}: round {round_ + 1} of {plan.rounds}", flush=True)
    return results


Asking = dict[str, tuple[Subject, Mapping[str, Any]]]


def _parley(work: Path, stack: contextlib.ExitStack, results: Results) -> Asking:
    url = os.environ.get("REDIS8_URL", "")
    sets = bool(url)
    if not url:
        data = work / "redis"
        data.mkdir()
        command = peers.redis8_command(data)
        sets = command is not None
        url = stack.enter_context(server([*(command or valkey(data)), *_ROOM], work, "redis"))
    if not sets:
        results.lacking.append("No Redis 8 is here: vector sets are not measured.")
    subject = Subject(peers.own_command("parley_subject", work, url), work / "parley.log")
    stack.callback(subject.close)
    filled = subject.do("fill")
    print(f"  {results.size}: filled in {filled['seconds']:.1f} s", flush=True)
    asking: Asking = {}
    for name, index in {LOCAL: "local", **({SETS: "vector_sets"} if sets else {})}.items():
        built = subject.do("build", index=index)
        print(f"  {results.size}: {name} built in {built['seconds']:.1f} s", flush=True)
        if built["items"] != results.size:
            raise Failed(f"{name}: {built['items']} of {results.size} were taken in")
        results.figures[name] = Figures(
            filled["seconds"],
            built["seconds"],
            max(0, built["process_bytes"]) if index == "local" else built["redis_bytes"],
            filled["redis_bytes"],
        )
        asking[name] = (subject, {"index": index})
    return asking


def _peers(work: Path, stack: contextlib.ExitStack, results: Results) -> Asking:
    peer = peers.environment()
    asking: Asking = {}
    gptcache = Subject(
        peers.command(peer, "gptcache_subject", work), work / "gptcache.log", peers.sources()
    )
    stack.callback(gptcache.close)
    before = gptcache.memory_bytes
    built = gptcache.do("build")
    print(f"  {results.size}: {GPTCACHE} filled in {built['seconds']:.1f} s", flush=True)
    held = gptcache.memory_bytes - before
    results.figures[GPTCACHE] = Figures(built["seconds"], None, held)
    asking[GPTCACHE] = (gptcache, {})

    module = peers.search_module(peer)
    if module is None:
        results.lacking.append("No server with search commands is here: redisvl is not measured.")
        return asking
    data = work / "search"
    data.mkdir()
    command = peers.redis8_command(data) or valkey(data)
    url = stack.enter_context(
        server([*command, *_ROOM, "--loadmodule", str(module)], work, "search")
    )
    redisvl = Subject(
        peers.command(peer, "redisvl_subject", work, url), work / "redisvl.log", peers.sources()
    )
    stack.callback(redisvl.close)
    built = redisvl.do("build")
    print(f"  {results.size}: {REDISVL} filled in {built['seconds']:.1f} s", flush=True)
    results.figures[REDISVL] = Figures(built["seconds"], None, 0, built["redis_bytes"])
    asking[REDISVL] = (redisvl, {})
    return asking


def _ask(
    figures: Figures, subject: Subject, how: Mapping[str, Any], first: int, count: int
) -> None:
    done = subject.do("ask", first=first, count=count, **how)
    figures.times += done["times"]
    figures.hits += done["hits"]
    if "index" in how:
        done = subject.do("nominate", first=first, count=count, **how)
        figures.index_times += done["times"]
        figures.found += done["found"]
        figures.sought += done["sought"]


def table(results: Results) -> list[list[str]]:
    """Rows for a person: one a cache."""
    rows = [
        [
            *("cache", "p50 ms", "p99 ms", "index p50", "p99", "recall", "hits"),
            *("fill s", "build s", "index MiB", "Redis MiB"),
        ]
    ]
    for name, one in results.figures.items():
        index = (
            [f"{1000 * np.percentile(one.index_times, p):.2f}" for p in (50, 99)]
            if (one.index_times)
            else ["-", "-"]
        )
        rows.append(
            [
                name,
                f"{one.milliseconds(50):.2f}",
                f"{one.milliseconds(99):.2f}",
                *index,
                f"{one.recall:.4f}" if one.recall is not None else "-",
                f"{one.hits / max(1, len(one.times)):.3f}",
                f"{one.fill_seconds:.1f}" if one.fill_seconds is not None else "-",
                f"{one.build_seconds:.1f}" if one.build_seconds is not None else "-",
                f"{one.index_bytes / _MIB:.0f}" if one.index_bytes else "-",
                f"{one.redis_bytes / _MIB:.0f}" if one.redis_bytes else "-",
            ]
        )
    return rows


def ratios(results: Results) -> list[str]:
    """What a peer takes for a look-up, as a multiple of each of Parley's."""
    lines = []
    for peer in (GPTCACHE, REDISVL):
        if peer not in results.figures:
            continue
        for own in (LOCAL, SETS):
            if own not in results.figures:
                continue
            one, other = results.figures[peer], results.figures[own]
            lines.append(
                f"{results.size} entries: {peer} / {own}: "
                f"p50 {one.milliseconds(50) / other.milliseconds(50):.2f}, "
                f"p99 {one.milliseconds(99) / other.milliseconds(99):.2f}"
            )
    return lines
