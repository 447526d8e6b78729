"""Rows of their own in Locust's table, split by cache status.

They are written beside the requests and not among them, so that `Aggregated`
stays the sum of requests. Locust's columns say ms; each row's name says what
its numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from locust.stats import RequestStats, StatsEntry

from parley_loadtest.timing import AnswerTiming

KIND = "answer"


@dataclass(frozen=True, slots=True)
class Row:
    """One measure: its short name, the row's label, and its numbers per second of time."""

    name: str
    label: str
    scale: float


TTFT = Row("ttft", "TTFT ms", 1e3)
ITL = Row("itl", "inter-token µs", 1e6)
GAP = Row("gap", "gap between pieces ms", 1e3)
TOKENS = Row("tokens", "tokens/s", 1.0)
ROWS = (TTFT, ITL, GAP, TOKENS)

STATUSES = ("miss", "exact", "semantic", "bypass", "left")
"""Cache statuses of answers, and `left`: the person did not wait to learn it."""


def entry_name(row: Row, status: str) -> str:
    """Name of a row as the table shows it."""
    return f"{row.label} ({status})"


def record(stats: RequestStats, status: str, timing: AnswerTiming, tokens: int) -> None:
    """Write one answer into its rows."""
    if timing.ttft is not None:
        _log(stats, TTFT, status, timing.ttft)
    itl = timing.itl(tokens)
    if itl is not None:
        _log(stats, ITL, status, itl)
    for gap in timing.gaps:
        _log(stats, GAP, status, gap)
    rate = timing.tokens_per_second(tokens)
    if rate is not None:
        _log(stats, TOKENS, status, rate)


def _log(stats: RequestStats, row: Row, status: str, value: float) -> None:
    stats.get(entry_name(row, status), KIND).log(value * row.scale, 0)  # type: ignore[arg-type]


def merged(stats: RequestStats, row: Row, status: str = "") -> StatsEntry:
    """One entry over a row's cache statuses, or over the one named."""
    total = StatsEntry(stats, entry_name(row, status or "all"), KIND)
    for name, entry in _entries(stats, row):
        if not status or name == entry_name(row, status):
            total.extend(entry)
    return total


def _entries(stats: RequestStats, row: Row) -> Iterator[tuple[str, StatsEntry]]:
    names = {entry_name(row, status) for status in STATUSES}
    for (name, kind), entry in stats.entries.items():
        if kind == KIND and name in names:
            yield name, entry
