"""The benchmark's results as text."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from parley_loadtest.bench.rounds import Samples

BASE = "engine"


def table(results: Sequence[tuple[str, Sequence[Samples]]]) -> str:
    """Compare: speed and ratios first, then CPU time by process.

    Args:
        results: samples of every load, by the name of the setting they were taken in.
    """
    speed = [
        ["setting", "load", "way", "answers/s", "tokens/s", "tokens/piece", "ratio", "min-max"]
    ]
    for setting, samples in results:
        for one in samples:
            speed += list(_speeds(setting, one))
    lines = ["", "Speed (medians of the rounds; ratio to the engine's gRPC, called directly)", ""]
    lines += aligned(speed)
    for setting, samples in results:
        for one in samples:
            lines += ["", f"CPU milliseconds per 1,000 tokens: {one.load.name}, {setting}", ""]
            lines += aligned(_cpu(one))
    return "\n".join(lines)


def _speeds(setting: str, samples: Samples) -> Iterable[list[str]]:
    for way, rounds in samples.by_way.items():
        median, least, most = samples.ratio(way, BASE)
        tokens = sum(one.tokens for one in rounds)
        pieces = sum(one.pieces for one in rounds)
        yield [
            setting,
            samples.load.name,
            way,
            f"{statistics.median(one.answers_per_second for one in rounds):.1f}",
            f"{statistics.median(one.tokens_per_second for one in rounds):.0f}",
            f"{tokens / pieces:.1f}" if pieces else "",
            f"{median:.3f}",
            f"{least:.3f}-{most:.3f}",
        ]


def _cpu(samples: Samples) -> list[list[str]]:
    ways = list(samples.by_way)
    processes = sorted({name for way in ways for one in samples.by_way[way] for name in one.cpu})
    rows = [["process", *ways]]
    for process in processes:
        used = [samples.cpu_per_thousand(way, process) for way in ways]
        rows.append([process, *(f"{seconds * 1000:.1f}" for seconds in used)])
    sums = [sum(samples.cpu_per_thousand(way, process) for process in processes) for way in ways]
    rows.append(["all", *(f"{seconds * 1000:.1f}" for seconds in sums)])
    return rows


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows out in columns; the first has the headings."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if not _is_number(cell) else cell.rjust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit()
