"""The cache's benchmark counts rightly, from the same vectors at every run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parley_loadtest.cachebench import answers, endtoend, vectors
from parley_loadtest.cachebench.endtoend import Answered, Measured, Misses, workload
from parley_loadtest.cachebench.subjects.child import Work


def test_vectors_are_of_unit_length_the_same_each_time_and_questions_are_near(
    tmp_path: Path,
) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        vectors.write(tmp_path / name, 200, 30)
        found.append(Work.read(tmp_path / name))
    one, two = found
    assert np.array_equal(one.stored, two.stored)
    assert np.array_equal(one.asked, two.asked)
    assert np.allclose(np.linalg.norm(one.stored, axis=1), 1.0, atol=1e-5)
    nearest = np.argmax(one.asked @ np.asarray(one.stored).T, axis=1)
    assert np.array_equal(nearest, one.meant)


@pytest.mark.parametrize("repeated", [0.0, 0.5, 1.0])
def test_only_what_was_asked_long_enough_before_is_asked_again(repeated: float) -> None:
    asked = workload(400, repeated)
    again = 0
    for place, question in enumerate(asked):
        if question in asked[:place]:
            again += 1
            assert place - asked.index(question) >= 16
    assert abs(again / (len(asked) - 16) - repeated) < 0.08


def test_shares_and_costs_are_of_the_same_questions() -> None:
    miss = Answered(first=0.2, whole=1.0, tokens=50, status="miss")
    hit = Answered(first=0.02, whole=0.02, tokens=0, status="exact")
    measured = Measured(
        used=[miss, hit],
        passed_by=[miss, miss],
        misses={
            endtoend.NOTHING: Misses([0.21] * 5, [0.2] * 5),
            endtoend.ALIKE: Misses([0.22] * 5, [0.2] * 5),
        },
    )
    saved, first, cost, dearer = endtoend.ratios(measured, 0.5)
    assert "50.0% served from the cache, 49.0% of the time and 50.0% of the tokens saved" in saved
    assert first.endswith("0.100")
    assert "where nothing was kept" in cost
    assert "5.00%" in cost
    assert "10.00%" in dearer


def test_a_peer_is_told_as_a_multiple_of_each_of_ours() -> None:
    figures = {
        answers.LOCAL: answers.Figures(times=[0.01] * 10, found=79, sought=80),
        answers.SETS: answers.Figures(times=[0.02] * 10),
        answers.GPTCACHE: answers.Figures(times=[0.05] * 10),
    }
    results = answers.Results(1_000, figures, [])
    assert answers.ratios(results) == [
        "1000 entries: GPTCache / parley local: p50 5.00, p99 5.00",
        "1000 entries: GPTCache / parley vector sets: p50 2.50, p99 2.50",
    ]
    rows = answers.table(results)
    assert len({len(row) for row in rows}) == 1
    assert rows[1][:6] == ["parley local", "10.00", "10.00", "-", "-", "0.9875"]
    assert rows[2][5] == "-"
