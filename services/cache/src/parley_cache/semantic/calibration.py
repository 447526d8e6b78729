"""What the second check learnt from labelled pairs, and where it came from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from parley_cache.semantic.score import FEATURES

FORMAT = 1
SHIPPED = "minilm-l6-v2-int8.json"


class CalibrationError(ValueError):
    """A calibration file cannot be used: what is wrong with it, in a sentence."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights and thresholds of one embedding model, with their provenance.

    `cosine_floor`: pairs below it are not looked at. `threshold`: the least score
    that is served. `provenance`: data set, its hash, split, date, figures.
    """

    model: str
    weights: tuple[float, ...]
    bias: float
    threshold: float
    cosine_floor: float
    provenance: Mapping[str, Any]

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
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CalibrationError(f"{name} lacks or misstates {error}.") from error
    values = (*found.weights, found.bias, found.threshold, found.cosine_floor)
    if not all(map(math.isfinite, values)) or not 0 < found.threshold <= 1:
        raise CalibrationError(f"{name} holds numbers that cannot be used.")
    return found
