"""The table of what faults did: a row a case, and how long answers stood still."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.ledger import Ledger, Reading
from support.verdict import Evidence, Kind, Verdict

# A wait of so many seconds between two pieces of an answer is one that a fault made: they
# come every tenth of a second.
PAUSE_SECONDS = 1.0
# The two rows that say what the hint of a reset connection is worth.
HINTS = {
    ("kill -9", "session"): "holder killed, with the hint",
    ("lost, no reset", "session"): "holder lost, without the hint",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What one fault did to one victim. Times in seconds."""

    fault: str
    victim: str
    # Answers in progress when it struck, and of these: with a broken stream, a long pause,
    # or another attempt; of those: that ended with the whole answer all the same.
    struck: int
    disturbed: int
    recovered: int
    failed: int
    lost: int
    doubled: int
    longest_pause: float
    # From the fault to the next text of each answer that moved, or else stood still.
    resumed_after: Sequence[float] = field(default=(), repr=False)
    requests_refused: int = 0


@dataclass(slots=True)
class Table:
    """All rows of a run of the suite."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Add a row."""
        self.rows.append(row)

    def markdown(self) -> str:
        """The table as a page."""
        head = (
            "| fault | victim | answers in progress | disturbed | recovered | failed | lost "
            "| doubled | longest pause | next token p50 | p95 |"
        )
        lines = ["# Fault matrix", "", head, "|---|---|" + "---:|" * 9]
        for row in self.rows:
            counts = (row.struck, row.disturbed, row.recovered, row.failed, row.lost, row.doubled)
            times = (row.longest_pause, *percentiles(row.resumed_after))
            cells = [row.fault, row.victim, *map(str, counts), *map(_seconds, times)]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, "", *(f"- {note}" for note in self._all_notes()), ""])

    def _all_notes(self) -> list[str]:
        hints = [
            f"{words}: p50 {_seconds(p50)}, p95 {_seconds(p95)} to the next token"
            for row in self.rows
            if (words := HINTS.get((row.fault, row.victim)))
            for p50, p95 in [percentiles(row.resumed_after)]
        ]
        return [*hints, *self.notes]

    def write(self, path: Path) -> None:
        """Write the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.markdown())


def row_of(
    fault: str,
    victim: str,
    *,
    ledger: Ledger,
    evidence: Evidence,
    verdict: Verdict,
    struck: Sequence[Reading],
    struck_at: float,
) -> Row:
    """Sum up a case whose verdict is in."""
    disturbed = [r for r in struck if _disturbed(r, struck_at, evidence)]
    # Where some have moved, these were the victim's; others were merely held up.
    measured = [r for r in disturbed if _moved(r, struck_at, evidence)] or disturbed
    states = [evidence.stored_runs.get(r.run, {}).get("state") for r in disturbed]
    whole = [
        r.ending == "done" and s == "completed" for r, s in zip(disturbed, states, strict=True)
    ]
    pauses = [
        seconds
        for reading in ledger.readings.values()
        for _, seconds in reading.pauses(since=struck_at)
    ]
    return Row(
        fault=fault,
        victim=victim,
        struck=len(struck),
        disturbed=len(disturbed),
        recovered=sum(whole),
        failed=verdict.count(Kind.FAILED),
        lost=verdict.count(Kind.LOST, Kind.UNENDED, Kind.CHANGED, Kind.REORDERED),
        doubled=verdict.count(Kind.DOUBLED),
        longest_pause=max(pauses, default=0.0),
        resumed_after=[
            after
            for r in measured
            if (after := next_text_after(r, struck_at, moved=_moved(r, struck_at, evidence)))
            is not None
        ],
        requests_refused=sum(len(ask.refusals) for ask in ledger.asks),
    )


def next_text_after(reading: Reading, at: float, *, moved: bool = False) -> float | None:
    """Seconds that an answer stood still because of a fault at `at`; None: it did not.

    They begin with the fault, or with the last text that still came after it. `moved`: the
    answer is known to have moved to another replica or stream, however quickly: then it is
    the longest wait for text.
    """
    pauses = reading.pauses(since=at)
    if moved:
        texts = [pause for pause in pauses if pause[0] != reading.ended_at]
        longest = max(texts, key=lambda pause: pause[1], default=None)
    else:
        longest = next((pause for pause in pauses if pause[1] >= PAUSE_SECONDS), None)
    if longest is None:
        return None
    end, seconds = longest
    return min(seconds, end - at)


def ends_after(readings: Sequence[Reading], healed_at: float) -> list[float]:
    """Seconds from the healing to the ends of the answers that had waited for nothing else."""
    return [
        reading.ended_at - healed_at
        for reading in readings
        if reading.deltas
        and reading.deltas[-1].at < healed_at
        and reading.ended_at is not None
        and reading.ended_at >= healed_at
    ]


def percentiles(seconds: Sequence[float]) -> tuple[float | None, float | None]:
    """The p50 and the p95, None where there is nothing."""
    if not seconds:
        return None, None
    ordered = sorted(seconds)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def _disturbed(reading: Reading, since: float, evidence: Evidence) -> bool:
    return _moved(reading, since, evidence) or any(
        seconds >= PAUSE_SECONDS for _, seconds in reading.pauses(since)
    )


def _moved(reading: Reading, since: float, evidence: Evidence) -> bool:
    run = evidence.stored_runs.get(reading.run, {})
    return run.get("attempt", 1) > 1 or any(at >= since for at in reading.breaks)


def words_of_ends(fault: str, victim: str, seconds: Sequence[float]) -> str:
    """Say how long ends that could not be stored came after the healing."""
    p50, _ = percentiles(seconds)
    return (
        f"{victim}, {fault}: {len(seconds)} answers waited for their end alone; it came "
        f"{_seconds(p50)} (p50), {_seconds(max(seconds))} (the last) after the healing"
    )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"
