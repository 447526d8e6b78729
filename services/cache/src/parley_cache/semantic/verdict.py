"""The second check: does a stored question ask for the same answer as this one?"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from parley_cache.semantic.alignment import align
from parley_cache.semantic.analysis import Analysis, analyse
from parley_cache.semantic.calibration import Calibration
from parley_cache.semantic.checks.rules import RULES
from parley_cache.semantic.score import features, probability


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether two questions may share an answer.

    `reason` is one stable snake_case word; `reasons` are all the rules that spoke, or
    the first alone where no more was asked for.
    `score` is 0 where a rule kept the two apart, else the model's estimate (0 to 1).
    """

    same: bool
    reason: str
    reasons: tuple[str, ...]
    cosine: float
    score: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored question that the index nominated; `vector` has unit length."""

    entry_id: str
    question: str
    vector: Sequence[float]


class PairJudge(Protocol):
    """A costlier judge of two questions, asked after the rules: a cross-encoder."""

    def judge(self, question: str, candidates: Sequence[str]) -> list[float]:
        """Returns an estimate, 0 to 1, for each candidate. Blocking."""
        ...


class SecondCheck:
    """Compares two questions for what their embeddings miss.

    Pure and bounded: about half a millisecond where one question is new, a fifth where
    both are known, ten for a hostile text. A `judge` may only refuse what the rules and
    the score let through.
    """

    def __init__(
        self,
        calibration: Calibration,
        vocabulary: Collection[str] = (),
        *,
        judge: PairJudge | None = None,
        judge_threshold: float = 0.5,
    ) -> None:
        self._calibration = calibration
        self._vocabulary = vocabulary
        self._judge = judge
        self._judge_threshold = judge_threshold

    def compare(self, question: str, stored: str, cosine: float, *, brief: bool = False) -> Verdict:
        """Judges one pair; `brief` ends at the first reason. Symmetric. Never raises."""
        cosine = cosine if math.isfinite(cosine) else 0.0
        first, second = sorted((question, stored))
        a, b = analyse(first), analyse(second)
        if a.bare == b.bare and a.code == b.code and (a.bare or first == second):
            return Verdict(True, "same_words", (), cosine, 1.0)
        if not a.whole or not b.whole:
            return _apart("too_long_to_compare", cosine)
        if a.pack is None or b.pack is None:
            return _apart("unknown_language", cosine)
        if cosine < self._calibration.cosine_floor:
            return _apart("not_similar", cosine)
        return self._weigh(a, b, cosine, brief=brief)

    def choose(
        self, question: str, vector: Sequence[float], candidates: Sequence[Candidate]
    ) -> tuple[Candidate | None, Verdict | None]:
        """Returns the best candidate that asks the same, with its verdict.

        Where none does: None and the verdict on the nearest, for the miss's reason.
        The cosine is computed here, in double precision. With a `judge` the call takes
        the judge's time and raises what it raises: call it off the event loop.
        """
        judged = [
            (self.compare(question, c.question, dot(vector, c.vector), brief=True), c)
            for c in candidates
        ]
        agreed = [(v, c) for v, c in judged if v.same]
        if agreed and self._judge is not None:
            agreed, judged = self._heard(self._judge, question, agreed)
        if agreed:
            best, candidate = max(agreed, key=lambda found: (found[0].score, found[0].cosine))
            return candidate, best
        nearest = max((v for v, _ in judged), key=lambda v: v.cosine, default=None)
        return None, nearest

    def _heard(
        self, judge: PairJudge, question: str, agreed: list[tuple[Verdict, Candidate]]
    ) -> tuple[list[tuple[Verdict, Candidate]], list[tuple[Verdict, Candidate]]]:
        """Leaves only what the judge lets stand; it is not asked of the very same words."""
        asked = [(v, c) for v, c in agreed if v.reason != "same_words"]
        estimates = judge.judge(question, [c.question for _, c in asked])
        refused = {
            c.entry_id
            for (_, c), estimate in zip(asked, estimates, strict=True)
            if estimate < self._judge_threshold
        }
        left = [(v, c) for v, c in agreed if c.entry_id not in refused]
        heard = [
            (_apart("cross_encoder", v.cosine) if c.entry_id in refused else v, c)
            for v, c in agreed
        ]
        return left, heard

    def _weigh(self, a: Analysis, b: Analysis, cosine: float, *, brief: bool) -> Verdict:
        pair = align(a, b, self._vocabulary)
        found = (reason for rule in RULES if (reason := rule(a, b, pair)))
        reasons = tuple(dict.fromkeys(islice(found, 1) if brief else found))
        if reasons:
            return Verdict(False, reasons[0], reasons, cosine, 0.0)
        if pair.left or pair.right:
            # On pairs seen for the first time, one in ten of those that a score let
            # through with a word to spare was wrong: a word too many is a miss.
            return _apart("other_words", cosine)
        values = features(a, b, pair, cosine)
        score = probability(values, self._calibration.weights, self._calibration.bias)
        if score >= self._calibration.threshold:
            return Verdict(True, "same_meaning", (), cosine, score)
        return Verdict(False, "low_score", ("low_score",), cosine, score)


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the cosine of two vectors of unit length; 0 where they do not fit."""
    if len(a) != len(b):
        return 0.0
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def _apart(reason: str, cosine: float) -> Verdict:
    return Verdict(False, reason, (reason,), cosine, 0.0)
