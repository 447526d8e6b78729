"""What the second check learnt from labelled pairs, and where it came from."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from parley_cache.semantic.score import FEATURES, probability

FORMAT = 1
SHIPPED = "minilm-l6-v2-int8.json"


class CalibrationError(ValueError):
    """A calibration file cannot be used: what is wrong with it, in a sentence."""


@dataclass(frozen=True, slots=True)
class JudgeCalibration:
    """How the trained judge's logit and the rules' reasons make one score, in English.

    `identity`: the judge it was made for. `reasons`: the weight of each reason that a
    pair may have and still be served; any other keeps a pair apart, as without a judge.
    `disputed`: the weight of having any: where rules and judge agree, less will do.
    `cosine_floor`: pairs below it are not put to the judge, which would hardly ever say
    that they are the same.
    """

    identity: str
    logit: float
    reasons: Mapping[str, float]
    bias: float
    threshold: float
    provenance: Mapping[str, Any]
    disputed: float = 0.0
    cosine_floor: float = 0.0

    def score(self, logit: float, reasons: Collection[str]) -> float:
        """Returns the estimate, 0 to 1, that a pair of these reasons means the same."""
        weights = [self.reasons[reason] for reason in reasons]
        weights += [self.disputed] if reasons else []
        given = [1.0 for _ in weights]
        return probability((logit, *given), (self.logit, *weights), self.bias)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights and thresholds of one embedding model, with their provenance.

    `cosine_floor`: pairs below it are not looked at. `threshold`: the least score
    that is served. `provenance`: data set, its hash, split, date, figures. `judge`:
    where a trained judge is asked too.
    """

    model: str
    weights: tuple[float, ...]
    bias: float
    threshold: float
    cosine_floor: float
    provenance: Mapping[str, Any]
    judge: JudgeCalibration | None = None

    def write(self, path: Path) -> None:
        """Writes the file."""
        named = dict(zip(FEATURES, self.weights, strict=True))
        body = {"format": FORMAT, **asdict(self), "weights": named}
        path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_calibration(path: Path | None = None) -> Calibration:
    """Returns the calibration in `path`, or the one that is shipped.

    Raises CalibrationError where the file is missing, broken or of another form.
    """
    try:
        text = (
            path.read_text(encoding="utf-8")
            if path is not None
            else files("parley_cache.semantic")
            .joinpath("calibrations", SHIPPED)
            .read_text(encoding="utf-8")
        )
        body = json.loads(text)
    except (OSError, ValueError) as error:
        raise CalibrationError(
            f"The calibration {path or SHIPPED} cannot be read: {error}"
        ) from error
    return _parsed(body, str(path or SHIPPED))


def _parsed(body: Any, name: str) -> Calibration:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise CalibrationError(f"{name} is not a calibration of format {FORMAT}.")
    try:
        weights = tuple(float(body["weights"][feature]) for feature in FEATURES)
        found = Calibration(
            model=str(body["model"]),
            weights=weights,
            bias=float(body["bias"]),
            threshold=float(body["threshold"]),
            cosine_floor=float(body["cosine_floor"]),
            provenance=dict(body["provenance"]),
            judge=_judge(body["judge"]) if body.get("judge") else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CalibrationError(f"{name} lacks or misstates {error}.") from error
    values = (*found.weights, found.bias, found.threshold, found.cosine_floor)
    if found.judge is not None:
        judge = found.judge
        numbers = (judge.logit, judge.bias, judge.threshold, judge.disputed, judge.cosine_floor)
        values = (*values, *numbers, *judge.reasons.values())
    thresholds = [found.threshold, found.judge.threshold if found.judge else 1.0]
    if not all(map(math.isfinite, values)) or not all(0 < least <= 1 for least in thresholds):
        raise CalibrationError(f"{name} holds numbers that cannot be used.")
    return found


def _judge(body: Any) -> JudgeCalibration:
    return JudgeCalibration(
        identity=str(body["identity"]),
        logit=float(body["logit"]),
        reasons={str(name): float(weight) for name, weight in body["reasons"].items()},
        bias=float(body["bias"]),
        threshold=float(body["threshold"]),
        provenance=dict(body["provenance"]),
        disputed=float(body["disputed"]),
        cosine_floor=float(body.get("cosine_floor", 0.0)),
    )
