"""How alike two questions are that no rule keeps apart: a small logistic model.

Its features are counts that a person can read; its weights come from the
calibration file, never from code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from parley_cache.semantic.alignment import Alignment
from parley_cache.semantic.analysis import Analysis

FEATURES = (
    "cosine",  # of the two embeddings
    "same_question",  # 1 where both ask for the same kind of answer, known
    "exact",  # share of the matched words that are the very same
    "spare",  # share of words that stand on one side alone and say nothing new
    "order",  # share of neighbouring matched words that keep their order
)
# Which way a feature may pull; a fit that finds otherwise has found the set's habits.
SIGNS = (1, 1, 1, -1, 1)


def features(a: Analysis, b: Analysis, pair: Alignment, cosine: float) -> tuple[float, ...]:
    """Returns the values of `FEATURES`, each between -1 and 1."""
    return (
        cosine,
        float(a.asks == b.asks and bool(a.asks[0])),
        pair.exact / max(len(pair.pairs), 1),
        pair.soft / max(len(pair.pairs) + pair.soft, 1),
        _kept(pair),
    )


def _kept(pair: Alignment) -> float:
    places = [y.place for _, y in sorted(pair.pairs, key=lambda p: p[0].place)]
    steps = list(itertools.pairwise(places))
    return sum(x < y for x, y in steps) / len(steps) if steps else 1.0


def probability(values: Sequence[float], weights: Sequence[float], bias: float) -> float:
    """Returns the model's estimate, 0 to 1, that the two mean the same."""
    total = bias + sum(v * w for v, w in zip(values, weights, strict=True))
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, total))))
