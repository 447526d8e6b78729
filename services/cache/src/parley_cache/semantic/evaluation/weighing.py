"""Fits how much a rule's reason weighs against the trained judge's logit.

On pairs that the judge was not trained on. The threshold is taken from scores that are
cross-fitted: each fold of the questions is scored by weights fitted to the others.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from parley_cache.semantic.calibration import Calibration, JudgeCalibration
from parley_cache.semantic.embedding import Model
from parley_cache.semantic.evaluation.judging import cosines
from parley_cache.semantic.evaluation.pairs import PairSet
from parley_cache.semantic.verdict import SecondCheck, TrainedPairs

FOLDS = 5
# A reason that fewer paraphrases have keeps a pair apart, as without a judge.
LEAST_SEEN = 15
# Weights of having any reason that are tried: what serves most at the wrong share allowed is kept.
DISPUTED = (0.0, -0.5, -1.0, -1.5, -2.0, -2.5, -3.0)
_SHRINKAGE = 3.0
_LEAST_HITS = 40
# Share of what would be served that may lie below the floor: judging all that is near it
# takes the time of those who are not served.
_BELOW_FLOOR = 0.01
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Left:
    """A pair that is left to the judge once its reasons only weigh."""

    place: int
    same: bool
    fold: int
    reasons: tuple[str, ...]
    logit: float
    cosine: float


@dataclass(frozen=True, slots=True)
class _Fit:
    logit: float
    reasons: dict[str, float]
    bias: float

    def scores(self, left: Sequence[Left], disputed: float) -> Floats:
        made = JudgeCalibration("", self.logit, self.reasons, self.bias, 1.0, {}, disputed)
        known = (item if set(item.reasons) <= set(self.reasons) else None for item in left)
        return np.array([made.score(k.logit, k.reasons) if k else 0.0 for k in known])


def left_open(
    model: Model, trained: TrainedPairs, pairs: PairSet, calibration: Calibration
) -> list[Left]:
    """Returns the English pairs that no length or distance keeps from the judge."""
    check = SecondCheck(calibration, model.vocabulary)
    found: list[Left] = []
    for place, (pair, cosine) in enumerate(zip(pairs.pairs, cosines(model, pairs), strict=True)):
        reasons = check.reasons_of(pair.text_a, pair.text_b, cosine)
        if reasons is not None:
            [logit] = trained.logits([(pair.text_a, pair.text_b)])
            fold = hashlib.sha256(min(pair.text_a, pair.text_b).encode()).digest()[0] % FOLDS
            found.append(Left(place, pair.same, fold, reasons, logit, cosine))
    return found


def weigh(
    model: Model,
    trained: TrainedPairs,
    pairs: PairSet,
    calibration: Calibration,
    *,
    split: str,
    most_wrong: float,
) -> Calibration:
    """Returns `calibration` with weights for `trained`, and the lowest threshold allowed.

    Wrong per hit counts as many traps as paraphrases. Raises ValueError where no
    threshold keeps it at `most_wrong`.
    """
    left = left_open(model, trained, pairs, calibration)
    if len({item.same for item in left}) < 2:
        raise ValueError("No English pairs of both labels are left to the judge: nothing to fit.")
    same = np.array([item.same for item in left])
    tried = (
        (disputed, _threshold(scores, same, most_wrong))
        for disputed, scores in zip(DISPUTED, _cross_fitted(left), strict=True)
    )
    points = [(disputed, point) for disputed, point in tried if point is not None]
    if not points:
        raise ValueError(f"No threshold keeps wrong per hit at {most_wrong:.1%} on these pairs.")
    disputed, (threshold, served, wrong) = max(points, key=lambda tried: tried[1][1])
    whole = _fit(left)
    floor = _floor(left, whole.scores(left, disputed) >= threshold)
    provenance = {
        "set": pairs.name,
        "sha256": pairs.sha256,
        "split": split or "all",
        "pairs": len(left),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "most_wrong": most_wrong,
        "served": round(served, 4),
        "wrong_per_hit": round(wrong, 4),
    }
    judge = JudgeCalibration(
        *(trained.identity, whole.logit, whole.reasons, whole.bias, threshold, provenance),
        disputed=disputed,
        cosine_floor=floor,
    )
    return replace(calibration, judge=judge)


def _cross_fitted(left: Sequence[Left]) -> list[Floats]:
    """Returns the scores of all, for each of `DISPUTED`; a fold's by weights of the others."""
    scores = [np.zeros(len(left)) for _ in DISPUTED]
    for fold in range(FOLDS):
        others = [item for item in left if item.fold != fold]
        mine = [n for n, item in enumerate(left) if item.fold == fold]
        if mine and len({item.same for item in others}) == 2:
            fitted = _fit(others)
            for disputed, of_all in zip(DISPUTED, scores, strict=True):
                of_all[mine] = fitted.scores([left[n] for n in mine], disputed)
    return scores


def _fit(left: Sequence[Left]) -> _Fit:
    """Fits a logistic model by Newton's method; both labels count the same.

    A reason may only pull apart: one that would pull together weighs nothing.
    """
    seen = Counter(reason for item in left if item.same for reason in item.reasons)
    names = sorted(name for name, count in seen.items() if count >= LEAST_SEEN)
    rows = np.array(
        [[item.logit, *(float(name in item.reasons) for name in names), 1.0] for item in left]
    )
    same = np.array([item.same for item in left], dtype=np.float64)
    weight = np.where(same > 0, 0.5 / same.mean(), 0.5 / (1 - same.mean()))
    free = np.ones(rows.shape[1], dtype=bool)
    found = np.zeros(rows.shape[1])
    shrink = np.full(rows.shape[1], _SHRINKAGE)
    shrink[[0, -1]] = 1e-3
    for _ in range(len(names) + 1):
        found = np.zeros(rows.shape[1])
        for _ in range(50):
            estimate = 1 / (1 + np.exp(-np.clip(rows @ found, -30, 30)))
            slope = rows.T @ (weight * (same - estimate)) - shrink * found
            curve = (rows.T * (weight * estimate * (1 - estimate))) @ rows + np.diag(shrink)
            found[free] += np.linalg.solve(curve[np.ix_(free, free)], slope[free])
        wrong = free & (found > 0)
        wrong[[0, -1]] = False
        if not wrong.any():
            break
        free &= ~wrong
    weights = {name: round(float(w), 4) for name, w in zip(names, found[1:-1], strict=True)}
    return _Fit(round(float(found[0]), 4), weights, round(float(found[-1]), 4))


def _floor(left: Sequence[Left], served: npt.NDArray[np.bool_]) -> float:
    """Returns the cosine, to two digits, above which nearly all lies that is rightly served."""
    found = [item.cosine for item, hit in zip(left, served, strict=True) if hit and item.same]
    return math.floor(100 * float(np.quantile(found, _BELOW_FLOOR))) / 100 if found else 0.0


def _threshold(
    scores: Floats, same: npt.NDArray[np.bool_], most_wrong: float
) -> tuple[float, float, float] | None:
    """Returns the lowest threshold allowed, and its served and wrong shares; None: none is.

    Wrong per hit counts as many traps as paraphrases.
    """
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(same[order])
    traps = np.cumsum(~same[order]) * (same.sum() / max((~same).sum(), 1))
    hits = right + traps
    wrong = traps / np.maximum(hits, 1e-9)
    last = np.append(np.diff(scores[order]) != 0, True)
    allowed = np.flatnonzero(
        (wrong <= most_wrong) & last & (right >= _LEAST_HITS) & (scores[order] > 0)
    )
    if not len(allowed):
        return None
    at = int(allowed[-1])
    lower = scores[order][at + 1] if at + 1 < len(order) else 0.0
    threshold = round(float(scores[order][at] + lower) / 2, 5)
    return threshold, float(right[at] / same.sum()), float(wrong[at])
