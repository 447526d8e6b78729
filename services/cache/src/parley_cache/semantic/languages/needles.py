"""Which literal text a pattern cannot match without: a cheap test before a costly search."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

# The standard library's own reading of a pattern; it has no public name. Where a Python
# lays it out differently a pattern has no needles and is searched for as it is.
_reader: Any = import_module("re._parser")
_LEAST = 2  # letters or digits: one alone is in almost every text
_SOUGHT = 6  # letters: of needles that long, fewer are better than longer

_SETS = 3

Needles = tuple[str, ...]
_Texts = frozenset[str]
_NONE: _Texts = frozenset()


def needles(pattern: re.Pattern[str]) -> tuple[Needles, ...]:
    """Returns sets of texts; every match of `pattern` holds at least one text of each set.

    The most telling set is first; () where nothing is known.
    """
    if pattern.flags & (re.IGNORECASE | re.VERBOSE):
        return ()
    found = {one for one in _candidates(_reader.parse(pattern.pattern)) if one}
    ranked = sorted(found, key=lambda one: (_worth(one), sorted(one)), reverse=True)
    return tuple(tuple(sorted(one)) for one in ranked[:_SETS])


def _required(items: Iterable[tuple[Any, Any]]) -> _Texts:
    """Returns the best of the needles of what must match one after the other."""
    return max(_candidates(items), key=_worth, default=_NONE)


def _candidates(items: Iterable[tuple[Any, Any]]) -> Iterator[_Texts]:
    run = ""
    for kind, value in items:
        name = str(kind)
        if name == "LITERAL":
            run += chr(value)
            continue
        if name == "AT":  # takes no room: the literals on both sides are neighbours
            continue
        yield _long(run)
        run = ""
        if name == "SUBPATTERN":
            yield _required(value[-1])
        elif name == "BRANCH":
            yield _any_of([_required(branch) for branch in value[1]])
        elif name == "ASSERT" or (name.endswith("_REPEAT") and value[0] >= 1):
            yield _required(value[-1])
    yield _long(run)


def _long(run: str) -> _Texts:
    """The literals themselves, where they are worth a look."""
    plain = run.strip()
    telling = len(plain) >= _LEAST or (plain != "" and not plain.isalnum())
    return frozenset((run,)) if telling else _NONE


def _any_of(branches: list[_Texts]) -> _Texts:
    return frozenset().union(*branches) if all(branches) else _NONE


def _worth(found: _Texts) -> tuple[int, int]:
    """Rare and few: the shortest decides how rare."""
    return (min(_SOUGHT, *map(len, found)), -len(found)) if found else (0, 0)
