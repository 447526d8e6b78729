"""The second check: does a stored question ask for the same answer as this one?"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from parley_cache.semantic.alignment import align
from parley_cache.semantic.analysis import Analysis, analyse
from parley_cache.semantic.calibration import Calibration, CalibrationError
from parley_cache.semantic.checks.rules import RULES
from parley_cache.semantic.checks.wording import written_apart
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
    """A judge that may only refuse, asked last: a cross-encoder."""

    def judge(self, question: str, candidates: Sequence[str]) -> list[float]:
        """Returns an estimate, 0 to 1, for each candidate. Blocking."""
        ...


class TrainedPairs(Protocol):
    """A judge whose logit is weighed against the rules' reasons."""

    @property
    def identity(self) -> str:
        """Says which judge this is."""
        ...

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Returns, for each pair, the log odds that both mean the same. Blocking, symmetric."""
        ...


@dataclass(frozen=True, slots=True)
class _Open:
    """A pair that the rules leave to the trained judge, with their reasons."""

    first: str
    second: str
    reasons: tuple[str, ...]
    cosine: float


# Nominees that the trained judge is asked about in one look-up, the nearest first.
MOST_JUDGED = 3
_OTHER_WORDS = "other_words"
# The same words with other parts to play: worse than a part that reworded text may hide.
_ONLY_SWAPPED = "only_swapped"
_SWAPS = frozenset(("role_swap", "direction"))
_JUDGED_LANGUAGE = "en"
_NO_JUDGE = "language_not_judged"


class SecondCheck:
    """Compares two questions for what their embeddings miss.

    Pure and bounded: about half a millisecond where one question is new, a fifth where
    both are known, ten for a hostile text. With a trained `judge`, English pairs that
    the rules leave open take its time as well: call it off the event loop then. In
    other languages, which it does not know, the same words alone are the same.
    Raises CalibrationError where the calibration is for another judge.
    """

    def __init__(
        self,
        calibration: Calibration,
        vocabulary: Collection[str] = (),
        *,
        judge: TrainedPairs | None = None,
    ) -> None:
        if judge is not None and (
            calibration.judge is None or calibration.judge.identity != judge.identity
        ):
            raise CalibrationError(f"The calibration is not for the judge {judge.identity}.")
        self._calibration = calibration
        self._vocabulary = vocabulary
        self._judge = judge
        # With a judge it alone serves what is not in the same words.
        judged = calibration.judge if judge is not None else None
        self._floor = max(calibration.cosine_floor, judged.cosine_floor if judged else 0.0)

    @property
    def cosine_floor(self) -> float:
        """Pairs below it are not compared."""
        return self._floor

    def compare(self, question: str, stored: str, cosine: float, *, brief: bool = False) -> Verdict:
        """Judges one pair; `brief` ends at the first reason. Symmetric. Never raises."""
        [verdict] = self._settled([self._ruled(question, stored, cosine, brief=brief)])
        return verdict

    def choose(
        self, question: str, vector: Sequence[float], candidates: Sequence[Candidate]
    ) -> tuple[Candidate | None, Verdict | None]:
        """Returns the nearest candidate that asks the same, with its verdict.

        Where none does: None and the verdict on the nearest of all, for the miss's reason.
        The cosine is computed here, in double precision. Nearest first, and no further
        than to the first that agrees by the rules alone. The nearest that they leave
        open, MOST_JUDGED at most, are put to the trained judge together.
        """
        cosines = (dot(vector, candidate.vector) for candidate in candidates)
        known = [cosine if math.isfinite(cosine) else 0.0 for cosine in cosines]
        near = sorted(zip(known, candidates, strict=True), key=lambda one: -one[0])
        found: list[Verdict | _Open] = []
        left = MOST_JUDGED
        for cosine, candidate in near:
            one = self._ruled(question, candidate.question, cosine, brief=True)
            if isinstance(one, _Open):
                left -= 1
                one = one if left >= 0 else _apart("not_judged", one.cosine)
            found.append(one)
            if isinstance(one, Verdict) and one.same:
                break
        verdicts = self._settled(found)
        for (_, candidate), verdict in zip(near, verdicts, strict=False):
            if verdict.same:
                return candidate, verdict
        return None, verdicts[0] if verdicts else None

    def reasons_of(self, question: str, stored: str, cosine: float) -> tuple[str, ...] | None:
        """Returns all reasons of a pair that a trained judge may be asked about, else None."""
        a, b = (analyse(text) for text in sorted((question, stored)))
        if a.bare == b.bare or self._incomparable(a, b, cosine) or not _judgeable(a, b):
            return None
        return self._reasons(a, b)

    def _ruled(self, question: str, stored: str, cosine: float, *, brief: bool) -> Verdict | _Open:
        cosine = cosine if math.isfinite(cosine) else 0.0
        first, second = sorted((question, stored))
        a, b = analyse(first), analyse(second)
        alike = a.bare == b.bare and a.code == b.code and not written_apart(a, b)
        if alike and (a.bare or first == second):
            return Verdict(True, "same_words", (), cosine, 1.0)
        refusal = self._incomparable(a, b, cosine)
        if refusal:
            return _apart(refusal, cosine)
        if self._judge is None:
            return self._weigh(a, b, cosine, brief=brief)
        if not _judgeable(a, b):
            # The rules alone are wrong too often on questions met for the first time.
            verdict = self._weigh(a, b, cosine, brief=brief)
            return _apart(_NO_JUDGE, cosine) if verdict.same else verdict
        reasons = self._reasons(a, b)
        known = self._calibration.judge.reasons if self._calibration.judge else {}
        final = [reason for reason in reasons if reason not in known]
        if final:
            return Verdict(False, final[0], reasons, cosine, 0.0)
        return _Open(first, second, reasons, cosine)

    def _incomparable(self, a: Analysis, b: Analysis, cosine: float) -> str:
        if not a.whole or not b.whole:
            return "too_long_to_compare"
        if a.pack is None or b.pack is None:
            return "unknown_language"
        if cosine < self._floor:
            return "not_similar"
        return "code_identifier" if written_apart(a, b) else ""

    def _reasons(self, a: Analysis, b: Analysis) -> tuple[str, ...]:
        pair = align(a, b, self._vocabulary)
        found = [reason for rule in RULES if (reason := rule(a, b, pair))]
        if pair.left or pair.right:
            found.append(_OTHER_WORDS)
        elif not _SWAPS.isdisjoint(found):
            found.append(_ONLY_SWAPPED)
        return tuple(dict.fromkeys(found))

    def _settled(self, found: Sequence[Verdict | _Open]) -> list[Verdict]:
        """Returns the verdicts, those that the rules left open by the trained judge."""
        opened = [pair for pair in found if isinstance(pair, _Open)]
        if self._judge is None or not opened:
            return [pair for pair in found if isinstance(pair, Verdict)]
        logits = self._judge.logits([(pair.first, pair.second) for pair in opened])
        judged = iter([self._judged(*one) for one in zip(opened, logits, strict=True)])
        return [next(judged) if isinstance(pair, _Open) else pair for pair in found]

    def _judged(self, pair: _Open, logit: float) -> Verdict:
        calibration = self._calibration.judge
        if calibration is None:
            return _apart("not_judged", pair.cosine)
        score = calibration.score(logit, pair.reasons) if math.isfinite(logit) else 0.0
        if score >= calibration.threshold:
            return Verdict(True, "same_meaning", pair.reasons, pair.cosine, score)
        reasons = pair.reasons or ("trained_judge",)
        return Verdict(False, reasons[0], reasons, pair.cosine, score)

    def _weigh(self, a: Analysis, b: Analysis, cosine: float, *, brief: bool) -> Verdict:
        pair = align(a, b, self._vocabulary)
        found = (reason for rule in RULES if (reason := rule(a, b, pair)))
        reasons = tuple(dict.fromkeys(islice(found, 1) if brief else found))
        if reasons:
            return Verdict(False, reasons[0], reasons, cosine, 0.0)
        if pair.left or pair.right:
            # On pairs seen for the first time, one in ten of those that a score let
            # through with a word to spare was wrong: a word too many is a miss.
            return _apart(_OTHER_WORDS, cosine)
        values = features(a, b, pair, cosine)
        score = probability(values, self._calibration.weights, self._calibration.bias)
        if score >= self._calibration.threshold:
            return Verdict(True, "same_meaning", (), cosine, score)
        return Verdict(False, "low_score", ("low_score",), cosine, score)


def _judgeable(a: Analysis, b: Analysis) -> bool:
    """The judge learnt from English alone."""
    return a.pack is not None and a.pack is b.pack and a.pack.code == _JUDGED_LANGUAGE


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the cosine of two vectors of unit length; 0 where they do not fit."""
    if len(a) != len(b):
        return 0.0
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def _apart(reason: str, cosine: float) -> Verdict:
    return Verdict(False, reason, (reason,), cosine, 0.0)
