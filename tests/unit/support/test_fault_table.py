"""The table says what the ledger says."""

from __future__ import annotations

from support.fault_table import (
    Row,
    Table,
    ends_after,
    next_text_after,
    percentiles,
    row_of,
    words_of_ends,
)
from support.ledger import Ledger
from support.verdict import Evidence, Verdict


def book(*moments: float) -> Ledger:
    """One answer of which a piece came at each of these times; it ended with the last."""
    times = iter([0.0, 0.0, 0.0, *moments, moments[-1]])
    ledger = Ledger(clock=lambda: next(times))
    ask = ledger.sends("ada", "question")
    ledger.acknowledged(ask, "chat", "run")
    reading = ledger.reads("run", "ada")
    for end, _ in enumerate(moments, start=1):
        ledger.delta(reading, "x", end)
    ledger.ended(reading, "done", "x" * len(moments))
    return ledger


def row(ledger: Ledger, at: float, attempt: int = 1, state: str = "completed") -> Row:
    reading = ledger.readings["run", "ada"]
    evidence = Evidence(stored_runs={"run": {"attempt": attempt, "state": state}})
    return row_of(
        "kill -9",
        "session",
        ledger=ledger,
        evidence=evidence,
        verdict=Verdict(),
        struck=[reading],
        struck_at=at,
    )


def test_the_wait_that_a_fault_made_is_measured() -> None:
    ledger = book(1.0, 1.1, 1.2, 4.2, 4.3)
    assert next_text_after(ledger.readings["run", "ada"], 1.15) == 3.0
    # Before the fault it had waited already.
    assert next_text_after(ledger.readings["run", "ada"], 2.2) == 2.0
    made = row(ledger, 1.15)
    assert (made.struck, made.disturbed, made.recovered) == (1, 1, 1)
    assert made.longest_pause == 3.0


def test_an_answer_that_flowed_on_was_not_disturbed() -> None:
    made = row(book(1.0, 1.1, 1.2, 1.3), 1.15)
    assert (made.disturbed, list(made.resumed_after)) == (0, [])


def test_another_attempt_or_a_broken_stream_is_a_disturbance() -> None:
    assert row(book(1.0, 1.1, 1.2), 1.05, attempt=2).disturbed == 1
    ledger = book(1.0, 1.1, 1.2)
    ledger.readings["run", "ada"].breaks.append(1.15)
    assert row(ledger, 1.05).disturbed == 1


def test_a_run_that_failed_has_not_recovered() -> None:
    made = row(book(1.0, 5.0), 1.5, state="failed")
    assert (made.disturbed, made.recovered) == (1, 0)


def test_percentiles_are_of_what_there_is() -> None:
    assert percentiles([]) == (None, None)
    assert percentiles([2.0, 1.0, 3.0]) == (2.0, 3.0)
    assert percentiles([float(n) for n in range(100)])[1] == 95.0


def test_the_page_has_a_row_a_case() -> None:
    table = Table()
    table.add(row(book(1.0, 1.1, 4.1), 1.05))
    table.notes.append("said beside it")
    page = table.markdown()
    assert "| kill -9 | session | 1 | 1 | 1 | 0 | 0 | 0 | 3.00 s | 3.00 s | 3.00 s |" in page
    assert "holder killed, with the hint: p50 3.00 s" in page
    assert "- said beside it" in page


def test_of_a_healed_link_it_is_told_how_long_held_up_ends_still_took() -> None:
    waited, flowing, over = (
        book(1.0, 1.5).readings["run", "ada"],
        book(1.0, 9.0).readings["run", "ada"],
        book(1.0, 1.2).readings["run", "ada"],
    )
    waited.ended_at = 7.5
    assert ends_after([waited, flowing, over], healed_at=6.0) == [1.5]
    words = words_of_ends("stalled", "mongodb", [0.5, 1.5, 9.0])
    assert "3 answers" in words
    assert "1.50 s (p50), 9.00 s (the last)" in words
