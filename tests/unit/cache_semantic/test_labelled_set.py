"""The labelled set is what its README says."""

import subprocess
import sys
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from support.embedding import PAIRS

LINES = PAIRS.read_text(encoding="utf-8").splitlines()
HEAD = LINES[0].split("\t")
ROWS = [dict(zip(HEAD, line.split("\t"), strict=True)) for line in LINES[1:]]


def test_it_has_enough_pairs_half_of_them_traps_in_many_categories() -> None:
    traps = [row for row in ROWS if row["label"] == "0"]
    same = [row for row in ROWS if row["label"] == "1"]

    assert len(ROWS) >= 1_500
    assert abs(len(traps) - len(same)) <= 0.02 * len(ROWS)
    assert len({row["category"] for row in traps}) >= 15
    assert {row["category"] for row in same} == {"paraphrase"}


def test_no_sentence_pattern_gives_more_than_five_pairs() -> None:
    counts = Counter(row["pattern"] for row in ROWS)

    assert max(counts.values()) <= 5


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """All that the groups give beside the file, what is for training alone among it."""
    path = tmp_path_factory.mktemp("pairs") / "crossed.tsv"
    build("--crossed", path)
    return [
        dict(zip(HEAD, line.split("\t"), strict=True))
        for line in path.read_text(encoding="utf-8").splitlines()[1:]
    ]


def build(option: str, path: Path) -> None:
    """Run the script that makes the file."""
    script = str(PAIRS.parent / "build_pairs.py")
    subprocess.run([sys.executable, script, option, str(path)], check=True, timeout=60)


def test_no_two_splits_share_a_pattern_or_a_question(crossed: list[dict[str, str]]) -> None:
    patterns: defaultdict[str, set[str]] = defaultdict(set)
    questions: defaultdict[str, set[str]] = defaultdict(set)
    for row in [*ROWS, *crossed]:
        patterns[row["split"]].add(row["pattern"])
        questions[row["split"]] |= {row["text_a"].lower(), row["text_b"].lower()}

    assert set(patterns) == {"calibrate", "report", "trained", "held", "unseen"}
    assert {row["split"] for row in ROWS} == set(patterns) - {"trained"}
    for one, other in combinations(patterns, 2):
        assert not patterns[one] & patterns[other]
        assert not questions[one] & questions[other]


@pytest.mark.parametrize("domain", ["everyday", "medical", "technical", "commercial", "legal"])
def test_each_kind_of_wording_is_there(domain: str) -> None:
    assert sum(row["domain"] == domain for row in ROWS) >= 100


def test_several_languages_are_there() -> None:
    counts = Counter(row["language"] for row in ROWS)

    assert {"en", "de", "fr", "es", "it", "pt"} <= set(counts)
    assert sum(count for language, count in counts.items() if language != "en") >= 200


def test_no_pair_is_there_twice() -> None:
    pairs = [frozenset((row["text_a"], row["text_b"])) for row in ROWS]

    assert len(set(pairs)) == len(pairs)


def test_the_file_is_what_the_groups_give(tmp_path: Path) -> None:
    built = tmp_path / "pairs.tsv"

    build("--out", built)

    assert built.read_bytes() == PAIRS.read_bytes()
