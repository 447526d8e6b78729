"""Which entries go first when room is needed: those worth least.

An entry is worth what serving it saves (its completion tokens, a byte held), times
how often it was served lately: each hit adds the entry's value once more, and all
of it halves every `HALF_LIFE_SECONDS`. What halves alike keeps its order, so the
score is the time at which the worth would be 1 and needs no refreshing:

    worth(t) = 2 ** ((score - t) / HALF_LIFE_SECONDS)
"""

from __future__ import annotations

import math

HALF_LIFE_SECONDS = 6 * 3600.0
_MOST = 64.0


def first_score(now: float, tokens: int, size: int) -> float:
    """Score an entry that is stored now.

    Args:
        now: Unix seconds.
        tokens: completion tokens that a hit saves.
        size: bytes that it is reckoned to take.
    """
    return now + HALF_LIFE_SECONDS * math.log2(_value(tokens, size))


def score_after(score: float, now: float, tokens: int, size: int, hits: int) -> float:
    """Score an entry anew after so many hits."""
    exponent = max(-_MOST, min(_MOST, (score - now) / HALF_LIFE_SECONDS))
    return now + HALF_LIFE_SECONDS * math.log2(2.0**exponent + hits * _value(tokens, size))


def _value(tokens: int, size: int) -> float:
    return (1 + max(0, tokens)) / max(1, size)
