"""Finds stop strings in text that arrives in pieces.

Knuth-Morris-Pratt, one automaton a stop string, so that every character is looked at once and
the state says at any time whether what has been read so far can be the beginning of a match.
"""

from collections.abc import Sequence


class StopMatcher:
    """Reads an answer's text piece by piece; positions count characters from its beginning."""

    def __init__(self, stops: Sequence[str]) -> None:
        """``stops``: non-empty strings."""
        self._patterns = [(stop, _borders(stop)) for stop in stops]
        self._firsts = frozenset(stop[0] for stop in stops)
        self._states = [0] * len(stops)
        self._clean = True
        self._position = 0

    @property
    def clean(self) -> bool:
        """Whether no suffix of the text so far can begin a stop string."""
        return self._clean

    def feed(self, text: str) -> int | None:
        """Read on. Returns the position where the first match to complete begins, or None.

        Of matches that end at the same character the longest counts. Nothing may be fed after
        a match.
        """
        if self._clean and self._firsts.isdisjoint(text):
            self._position += len(text)
            return None
        states = self._states
        for char in text:
            self._position += 1
            longest = 0
            for number, (pattern, borders) in enumerate(self._patterns):
                state = states[number]
                while state and pattern[state] != char:
                    state = borders[state - 1]
                if pattern[state] == char:
                    state += 1
                    if state == len(pattern):
                        longest = max(longest, state)
                states[number] = state
            if longest:
                return self._position - longest
        self._clean = not any(states)
        return None


def _borders(pattern: str) -> list[int]:
    """For each prefix of ``pattern``: the length of its longest proper prefix that is a suffix."""
    borders = [0] * len(pattern)
    length = 0
    for index in range(1, len(pattern)):
        while length and pattern[index] != pattern[length]:
            length = borders[length - 1]
        if pattern[index] == pattern[length]:
            length += 1
        borders[index] = length
    return borders
