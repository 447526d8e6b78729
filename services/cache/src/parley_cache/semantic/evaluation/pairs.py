"""Labelled pairs of questions, read from TSV or JSON lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAME = frozenset(("1", "true", "same", "yes", "paraphrase", "duplicate"))
DIFFERENT = frozenset(("0", "false", "different", "no", "trap", "not_duplicate"))
NEEDED = ("text_a", "text_b", "label")
MAX_PAIRS = 1_000_000


class PairsError(ValueError):
    """A file of pairs cannot be used: where and why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and whether one answer may serve both."""

    text_a: str
    text_b: str
    same: bool
    category: str
    split: str


@dataclass(frozen=True, slots=True)
class PairSet:
    """The pairs of one file, with its SHA-256."""

    name: str
    sha256: str
    pairs: tuple[Pair, ...]

    def of_split(self, split: str) -> PairSet:
        """Returns the pairs of one split; all of them for `""`. Raises PairsError if none."""
        chosen = tuple(p for p in self.pairs if not split or p.split == split)
        if not chosen:
            known = ", ".join(sorted({p.split for p in self.pairs if p.split})) or "none"
            raise PairsError(f"{self.name}: no pair is of split {split!r} (splits: {known}).")
        return PairSet(self.name, self.sha256, chosen)


def read_pairs(path: Path) -> PairSet:
    """Reads `path`. Raises PairsError with the file's name and line number.

    TSV: with a head naming at least text_a, text_b and label, or without a head,
    those three in that order and a category if there is a fourth. JSON lines: objects
    with those names. `category` and `split` may be missing; other columns are ignored.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PairsError(f"{path}: not UTF-8 at byte {error.start}.") from error
    except OSError as error:
        raise PairsError(f"{path}: {error.strerror or error}.") from error
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    rows = _json_rows(path, lines) if first.lstrip().startswith("{") else _tsv_rows(path, lines)
    pairs = tuple(_pair(path, number, row) for number, row in rows)
    if not pairs:
        raise PairsError(f"{path}: there is no pair in it.")
    if len(pairs) > MAX_PAIRS:
        raise PairsError(f"{path}: more than {MAX_PAIRS} pairs.")
    return PairSet(path.name, hashlib.sha256(raw).hexdigest(), pairs)


def _json_rows(path: Path, lines: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise PairsError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise PairsError(f"{path}, line {number}: not a JSON object.")
        yield number, row


def _tsv_rows(path: Path, lines: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    names: list[str] | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        if names is None:
            lowered = [cell.strip().lower() for cell in cells]
            if set(NEEDED) <= set(lowered):
                names = lowered
                continue
            names = [*NEEDED, "category"]
        if len(cells) < len(NEEDED):
            raise PairsError(
                f"{path}, line {number}: {len(cells)} columns where at least {len(NEEDED)} are "
                "needed (text_a, text_b, label; separated by tabs)."
            )
        yield number, dict(zip(names, cells, strict=False))


def _pair(path: Path, number: int, row: Mapping[str, Any]) -> Pair:
    for name in NEEDED:
        if row.get(name) is None:
            raise PairsError(f"{path}, line {number}: {name} is missing.")
    text_a, text_b = row["text_a"], row["text_b"]
    if not isinstance(text_a, str) or not isinstance(text_b, str):
        raise PairsError(f"{path}, line {number}: text_a and text_b must be text.")
    if not text_a.strip() or not text_b.strip():
        raise PairsError(f"{path}, line {number}: a question is empty.")
    label = str(row["label"]).strip().lower()
    if label not in SAME | DIFFERENT:
        raise PairsError(
            f"{path}, line {number}: the label {label[:40]!r} is neither 1 (same meaning) nor 0."
        )
    category = str(row.get("category") or "").strip() or "all"
    return Pair(text_a, text_b, label in SAME, category, str(row.get("split") or "").strip())
