"""Rules on what can be counted: numbers, units, money."""

# ruff: noqa: ARG001 - every rule has the same form, whatever it looks at
from __future__ import annotations

from parley_cache.semantic.alignment import Alignment
from parley_cache.semantic.analysis import Analysis
from parley_cache.semantic.units import unit_of


def numbers(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Every number but a plain one (`a`, `one`) is on both sides, as often."""
    for mine, other in ((a, b), (b, a)):
        for value in mine.numbers:
            if value not in other.numbers and not (value == 1.0 and "one" in other.present):
                return "number"
    return None


def number_places(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Numbers in another order count other things, unless each stands before its word."""
    for value in a.numbers.keys() & b.numbers.keys():
        mine, facing = ({w for v, w in q.bound if v == value} for q in (a, b))
        if _measures_apart(mine, facing):
            return "number"
        if mine.isdisjoint(facing) and mine & _nouns(b) and facing & _nouns(a):
            return "number"
    one, other = [v for v, _ in a.bound], [v for v, _ in b.bound]
    if one == other or sorted(one) != sorted(other) or len(set(one)) < 2:
        return None
    named = all(word and unit_of(word, after_number=True) is None for _, word in a.bound)
    return None if sorted(a.bound) == sorted(b.bound) and named else "number"


def _measures_apart(mine: set[str], facing: set[str]) -> bool:
    """The number counts two units of one dimension: 40 pounds, 40 kilograms."""
    one, other = (
        {unit for word in side if (unit := unit_of(word, after_number=True))}
        for side in (mine, facing)
    )
    shared = {dimension for dimension, _ in one} & {dimension for dimension, _ in other}
    return bool(shared) and one.isdisjoint(other)


def _nouns(q: Analysis) -> frozenset[str]:
    return frozenset(word.lemma for word in q.words)


def units(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """What both sides measure, they measure in the same units and money."""
    for dimension in a.units.keys() & b.units.keys():
        if a.units[dimension] != b.units[dimension]:
            return "currency" if dimension == "money" else "unit"
    for mine, other in ((a, b), (b, a)):
        if "money" in mine.units and "money" not in other.units and other.units:
            return "currency"
        for dimension in ("rate", "clock"):
            if dimension in mine.units and dimension not in other.units and mine.numbers:
                return "unit"
    return None
