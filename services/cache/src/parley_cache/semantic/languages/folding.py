"""Rewrites set phrases, hundreds of patterns a text, of which a text holds a few.

Every pattern has needles, texts that it cannot match without. One look for all needles
tells which patterns are worth a search.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from parley_cache.semantic.languages.needles import needles


class Folding:
    """Rewriting rules, applied in order, each to what the one before it left.

    Args:
        rules: patterns and what they become.
    """

    def __init__(self, rules: Sequence[tuple[re.Pattern[str], str]]) -> None:
        self._rules = tuple((pattern, plain, needles(pattern)) for pattern, plain in rules)
        # Bit n stands for rule n.
        self._always = 0
        bits: defaultdict[str, int] = defaultdict(int)
        for n, (_, _, sets) in enumerate(self._rules):
            if not sets:
                self._always |= 1 << n
            for needle in sets[:1]:
                for text in needle:
                    bits[text] |= 1 << n
        # Those of late rules first: a look from rule n on ends where only earlier ones follow.
        self._bits = tuple(sorted(bits.items(), key=lambda item: -item[1]))

    def __call__(self, text: str) -> str:
        """Returns `text`, lower case, with its set phrases folded."""
        first = 0
        while first < len(self._rules):
            for n in self._promising(text, first):
                pattern, plain, _ = self._rules[n]
                folded, count = pattern.subn(plain, text)
                if count:
                    # Other words, other needles.
                    text, first = " ".join(folded.split()), n + 1
                    break
            else:
                break
        return text

    def _promising(self, text: str, first: int) -> Iterator[int]:
        """Gives the rules from `first` on that `text` has the needles of, in order."""
        left, least = self._always, 1 << first
        for needle, bits in self._bits:
            if bits < least:
                break
            if needle in text:
                left |= bits
        left = left >> first << first
        while left:
            lowest = left & -left
            left ^= lowest
            n = lowest.bit_length() - 1
            if all(any(needle in text for needle in one) for one in self._rules[n][2][1:]):
                yield n
