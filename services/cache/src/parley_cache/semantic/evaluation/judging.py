"""Scores labelled pairs by cosine alone and by the whole verdict, and fits the latter."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from parley_cache.semantic.alignment import align
from parley_cache.semantic.analysis import analyse
from parley_cache.semantic.calibration import Calibration
from parley_cache.semantic.embedding import Model
from parley_cache.semantic.evaluation.figures import at, best, curve
from parley_cache.semantic.evaluation.pairs import Pair, PairSet
from parley_cache.semantic.score import FEATURES, SIGNS, features
from parley_cache.semantic.verdict import SecondCheck, TrainedPairs, Verdict

_BATCH = 32
# Below it an index does not nominate, and nothing is worth a look.
COSINE_FLOOR = 0.45
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judged:
    """The pairs of a set with what was found of each, in the same order."""

    pairs: PairSet
    cosines: tuple[float, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def same(self) -> list[bool]:
        """The labels."""
        return [pair.same for pair in self.pairs.pairs]

    @property
    def scores(self) -> list[float]:
        """The whole verdict's scores: 0 where a rule kept the pair apart."""
        return [verdict.score for verdict in self.verdicts]

    @property
    def wrong(self) -> list[tuple[int, Verdict]]:
        """Places of the pairs that are served and should not be."""
        return [
            (n, verdict)
            for n, verdict in enumerate(self.verdicts)
            if verdict.same and not self.pairs.pairs[n].same
        ]

    @property
    def refused(self) -> Counter[str]:
        """Why pairs that mean the same were not served."""
        return Counter(
            verdict.reason
            for pair, verdict in zip(self.pairs.pairs, self.verdicts, strict=True)
            if pair.same and not verdict.same
        )


def cosines(model: Model, pairs: PairSet) -> tuple[float, ...]:
    """Returns the cosine of each pair, every text embedded once."""
    texts = sorted({text for pair in pairs.pairs for text in (pair.text_a, pair.text_b)})
    place = {text: n for n, text in enumerate(texts)}
    parts = [model.embed(texts[n : n + _BATCH]) for n in range(0, len(texts), _BATCH)]
    vectors = np.concatenate(parts).astype(np.float64)
    return tuple(
        float(vectors[place[pair.text_a]] @ vectors[place[pair.text_b]]) for pair in pairs.pairs
    )


def judge(
    model: Model, pairs: PairSet, calibration: Calibration, trained: TrainedPairs | None = None
) -> Judged:
    """Judges every pair as the service would."""
    check = SecondCheck(calibration, model.vocabulary, judge=trained)
    found = cosines(model, pairs)
    verdicts = tuple(
        check.compare(pair.text_a, pair.text_b, cosine)
        for pair, cosine in zip(pairs.pairs, found, strict=True)
    )
    return Judged(pairs, found, verdicts)


def calibrate(model: Model, pairs: PairSet, split: str, most_wrong: float) -> Calibration:
    """Returns a calibration fitted to `pairs`: weights first, then the threshold.

    The threshold is the lowest that keeps wrong per hit at `most_wrong` or below on
    these pairs. Raises ValueError where the pairs allow none.
    """
    found = cosines(model, pairs)
    same = np.array([pair.same for pair in pairs.pairs], dtype=np.float64)
    left = [n for n, pair in enumerate(pairs.pairs) if _whole(pair, model)]
    if len({bool(same[n]) for n in left}) < 2:
        raise ValueError("No words are left over in pairs of one label alone: nothing to fit.")
    rows = np.array([_row(pairs, n, found[n], model) for n in left])
    weights, bias = fit(rows, same[left])
    draft = Calibration(model.identity, weights, bias, 0.5, COSINE_FLOOR, {})
    judged = judge(model, pairs, draft)
    point = best(curve(judged.scores, judged.same), most_wrong)
    if point is None:
        raise ValueError(f"No threshold keeps wrong per hit at {most_wrong:.1%} on these pairs.")
    threshold = _between(judged.scores, point.threshold)
    point = at(judged.scores, judged.same, threshold)
    return Calibration(
        model=model.identity,
        weights=weights,
        bias=bias,
        threshold=threshold,
        cosine_floor=COSINE_FLOOR,
        provenance={
            "set": pairs.name,
            "sha256": pairs.sha256,
            "split": split or "all",
            "pairs": len(pairs.pairs),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "most_wrong": most_wrong,
            "served": point.served.as_dict(),
            "wrong": point.wrong.as_dict(),
        },
    )


def fit(rows: Floats, same: Floats, steps: int = 6_000) -> tuple[tuple[float, ...], float]:
    """Returns the weights and bias of a logistic model whose weights keep `SIGNS`.

    Projected gradient descent with a little shrinkage: small, exact enough, and the
    same on every machine.
    """
    weights, bias = np.zeros(rows.shape[1]), 0.0
    signs = np.array(SIGNS)
    for _ in range(steps):
        estimate = 1 / (1 + np.exp(-(rows @ weights + bias)))
        slope = rows.T @ (estimate - same) / len(same) + 0.3 * weights / len(same)
        weights = weights - 0.5 * slope
        weights = np.where(weights * signs < 0, 0.0, weights)
        bias -= 0.5 * float((estimate - same).mean())
    return tuple(round(float(w), 4) for w in weights), round(bias, 4)


def _whole(pair: Pair, model: Model) -> bool:
    """Every word has a partner: such pairs teach the weights, whatever the rules say of them."""
    a, b = analyse(pair.text_a), analyse(pair.text_b)
    if a.pack is None or a.pack is not b.pack or a.bare == b.bare:
        return False
    found = align(a, b, model.vocabulary)
    return not found.left and not found.right


def _row(pairs: PairSet, n: int, cosine: float, model: Model) -> tuple[float, ...]:
    first, second = sorted((pairs.pairs[n].text_a, pairs.pairs[n].text_b))
    a, b = analyse(first), analyse(second)
    return features(a, b, align(a, b, model.vocabulary), cosine)


def _blank(model: Model) -> Calibration:
    return Calibration(model.identity, (0.0,) * len(FEATURES), 0.0, 0.5, COSINE_FLOOR, {})


def _between(scores: Sequence[float], threshold: float) -> float:
    """Halfway to the next lower score, so that a hair's difference does not flip a pair."""
    lower = max((score for score in scores if score < threshold), default=0.0)
    return round((threshold + lower) / 2, 4) if threshold - lower > 2e-4 else threshold
