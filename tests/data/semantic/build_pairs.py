"""Makes `pairs.tsv` from the hand-written groups in `groups/`.

A group is one question (`?`), other wordings of it (`=`) and questions that look
like it but need another answer (`! category`). Each wording and each trap makes a
pair with the question; a group is one sentence pattern and gives at most five
pairs: of a larger one, its first two wordings and its first and last trap. Where a
group has two wordings and a plain content-word trap too many, the two wordings are
paired with each other in its place, until wordings and traps are equal in number in
each split. Run it again after every change to a group:

    python tests/data/semantic/build_pairs.py

Groups of the split `trained` are for training alone and give none of these. `--out FILE` writes
elsewhere. With `--crossed FILE` it writes, elsewhere, all pairs that are left: every trap beside
every wording, and wordings beside each other. Such traps are seldom near copies.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path

HERE = Path(__file__).parent
PAIRS = HERE / "pairs.tsv"
COLUMNS = ("text_a", "text_b", "label", "category", "pattern", "domain", "language", "split")
MAX_PAIRS = 5
TRAINED = "trained"


@dataclass
class Group:
    """One question with what means the same and what does not."""

    pattern: str
    domain: str
    language: str
    question: str
    same: list[str] = field(default_factory=list)
    traps: list[tuple[str, str]] = field(default_factory=list)
    split: str = "calibrate"


def read_groups(folder: Path) -> list[Group]:
    """Returns all groups; a pattern is named after its file and its place in it."""
    groups: list[Group] = []
    for path in sorted(folder.glob("*.txt")):
        domain, language, split, place = "", "", "calibrate", 0
        for line in path.read_text(encoding="utf-8").splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "#":
                name, _, value = rest.partition(": ")
                domain = value if name == "domain" else domain
                language = value if name == "lang" else language
                split = value if name == "split" else split
            elif kind == "?":
                place += 1
                groups.append(Group(f"{path.stem}-{place:03}", domain, language, rest, split=split))
            elif kind == "=":
                groups[-1].same.append(rest)
            elif kind == "!":
                category, _, text = rest.partition(" ")
                groups[-1].traps.append((category, text))
            elif line.strip():
                raise ValueError(f"{path.name}: not a line of a group: {line!r}")
    return groups


def pairs_of(groups: list[Group]) -> list[tuple[str, ...]]:
    """Returns the rows of `pairs.tsv`, without its head."""
    rows: list[tuple[str, ...]] = []
    surplus: Counter[str] = Counter()
    for group in groups:
        if len(group.same) + len(group.traps) <= MAX_PAIRS:
            surplus[group.split] += len(group.traps) - len(group.same)
    for group in groups:
        traps = list(group.traps)
        crossed: list[tuple[str, str]] = []
        plain = [trap for trap in traps if trap[0] == "content"]
        if surplus[group.split] > 1 and plain and len(group.same) >= 2:
            traps.remove(plain[-1])
            crossed.append((group.same[0], group.same[1]))
            surplus[group.split] -= 2
        tail = (group.pattern, group.domain, group.language, group.split)
        same = group.same
        if len(same) + len(traps) > MAX_PAIRS:
            same, traps = same[:2], [traps[0], traps[-1]]
        made = [(group.question, text, "1", "paraphrase", *tail) for text in same]
        made += [(a, b, "1", "paraphrase", *tail) for a, b in crossed]
        made += [(group.question, text, "0", category, *tail) for category, text in traps]
        if len(made) > MAX_PAIRS:
            raise ValueError(f"{group.pattern} has {len(made)} pairs")
        rows += made
    return rows


def crossed(groups: list[Group], taken: set[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Returns the rows that pair what a group holds, but for `taken`."""
    rows: list[tuple[str, ...]] = []
    for group in groups:
        tail = (group.pattern, group.domain, group.language, group.split)
        wordings = (group.question, *group.same)
        rows += [(a, b, "1", "paraphrase", *tail) for a, b in combinations(wordings, 2)]
        rows += [
            (wording, trap, "0", category, *tail)
            for wording, (category, trap) in product(wordings, group.traps)
        ]
    return [row for row in rows if row[:2] not in taken]


def main() -> None:
    """Writes the file and says how many pairs it holds."""
    line = argparse.ArgumentParser(description="Makes pairs.tsv from the groups.")
    line.add_argument(
        "--out", type=Path, metavar="FILE", default=PAIRS, help="instead of pairs.tsv"
    )
    line.add_argument("--crossed", type=Path, metavar="FILE", help="write the pairs left instead")
    asked = line.parse_args()
    groups = read_groups(HERE / "groups")
    rows = pairs_of([group for group in groups if group.split != TRAINED])
    if asked.crossed is not None:
        rows = crossed(groups, {row[:2] for row in rows})
    lines = ["\t".join(row) for row in (COLUMNS, *rows)]
    (asked.crossed or asked.out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    same = sum(row[2] == "1" for row in rows)
    print(f"{len(rows)} pairs: {same} with the same meaning, {len(rows) - same} traps")  # noqa: T201


if __name__ == "__main__":
    main()
