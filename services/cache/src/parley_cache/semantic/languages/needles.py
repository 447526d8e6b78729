"""Which literal text a pattern cannot match without: a cheap test before a costly search."""

from __future__ import annotations

import re

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
    try:
        found = {one for one in _Reader(pattern.pattern).alternatives() if one}
    except _Unread:
        return ()
    ranked = sorted(found, key=lambda one: (_worth(one), sorted(one)), reverse=True)
    return tuple(tuple(sorted(one)) for one in ranked[:_SETS])


class _Unread(Exception):
    """The pattern has what is not read here."""


_REPEATED = re.compile(r"(?:[*?]|(?P<once>\+)|\{(?P<least>\d*)(?:,\d*)?\})[?+]?")
_GROUP = re.compile(r"\((?:\?(?::|P<\w+>|<?=|(?P<never><?!)))?")
_SET = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]")
_ANYTHING = re.compile(r"\.|\\[wWdDsS]")
_MARK = re.compile(r"[$^]|\\[AbBZ]")  # takes no room: the literals on both sides are neighbours
_LITERAL = re.compile(r"\\?([^\w\\])|(\w)", re.ASCII)
_OPEN = frozenset("*+?{|)([.^$")


class _Reader:
    """Reads a pattern that `re` has taken; raises _Unread at what it does not know."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def alternatives(self) -> list[_Texts]:
        """Reads to the end of the pattern or group; gives the needles, each must be there."""
        branches = [self._sequence()]
        while self._pattern.startswith("|", self._at):
            self._at += 1
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else [_any_of([_best(one) for one in branches])]

    def _sequence(self) -> list[_Texts]:
        found: list[_Texts] = []
        run = ""
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            if self._took(_MARK):
                continue
            item = self._item()
            repeated = self._took(_REPEATED)
            if isinstance(item, str) and not repeated:
                run += item
                continue
            found.append(_long(run))
            run = ""
            if repeated is None or repeated["once"] or int(repeated["least"] or 0) > 0:
                found.append(_long(item) if isinstance(item, str) else _best(item))
        return [*found, _long(run)]

    def _item(self) -> str | list[_Texts]:
        """A literal, or the needles of something else."""
        if group := self._took(_GROUP):
            inside = self.alternatives()
            self._at += len(")")
            return [] if group["never"] else inside
        if self._took(_SET) or self._took(_ANYTHING):
            return []
        if (literal := self._took(_LITERAL)) and literal[0] not in _OPEN:
            return literal[1] or literal[2]
        raise _Unread

    def _took(self, what: re.Pattern[str]) -> re.Match[str] | None:
        if found := what.match(self._pattern, self._at):
            self._at = found.end()
        return found


def _best(found: list[_Texts]) -> _Texts:
    return max(found, key=_worth, default=_NONE)


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
