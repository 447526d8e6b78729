"""What a run must reach: `errors<1%, ttft.p95<2s, itl.p99<80ms, tokens.p50>20, rps>5`.

    <measure>[@<cache status>](<|<=|>|>=)<number>[ms|s|%]

Measures: `errors` (share of requests), `rps`, `requests`, and of answers
`ttft`, `itl`, `gap` (times) and `tokens` (per second), each with `.avg`,
`.min`, `.max` or a percentile like `.p95`. Without a cache status all count.
A measure without a single sample is not reached.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from locust.stats import RequestStats

from parley_loadtest.rows import ROWS, STATUSES, merged

_FORM = re.compile(
    r"(?P<measure>\w+)(?:\.(?P<part>avg|min|max|p\d{1,2}(?:\.\d+)?))?(?:@(?P<status>\w+))?"
    r"\s*(?P<sign><=|>=|<|>)\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|%)?"
)
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_UNITS = {"ms": 1e-3, "s": 1.0, "%": 0.01, None: 1.0}
_WHOLE = ("errors", "rps", "requests")
_TIMES = ("ttft", "itl", "gap")


class ThresholdError(ValueError):
    """A threshold cannot be read; the message says how to write it."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """One bound; times are in seconds, shares in parts of one."""

    text: str
    measure: str
    part: str
    status: str
    sign: str
    bound: float

    def holds(self, value: float | None) -> bool:
        """Say whether a value is within the bound; none is not."""
        return value is not None and _SIGNS[self.sign](value, self.bound)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A threshold and what was measured."""

    threshold: Threshold
    value: float | None

    @property
    def reached(self) -> bool:
        """Whether the threshold holds."""
        return self.threshold.holds(self.value)

    def __str__(self) -> str:
        shown = "no sample" if self.value is None else f"{self.value:.6g}"
        return f"{'reached' if self.reached else 'MISSED '}  {self.threshold.text}  (was {shown})"


def parse_thresholds(text: str) -> list[Threshold]:
    """Read a comma-separated list; empty: none.

    Raises:
        ThresholdError: naming the part that is wrong.
    """
    return [_parse(part.strip()) for part in text.split(",") if part.strip()]


def _parse(text: str) -> Threshold:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ThresholdError(f"{text!r}: write it as ttft.p95<2s, errors<1% or rps>5")
    measure, part, status = match["measure"], match["part"] or "", match["status"] or ""
    known = {row.name for row in ROWS}
    if measure not in known and measure not in _WHOLE:
        raise ThresholdError(f"{text!r}: measures are {', '.join([*_WHOLE, *sorted(known)])}")
    if (measure in known) != bool(part):
        how = "with" if measure in known else "without"
        raise ThresholdError(f"{text!r}: {measure} is written {how} .p95 or the like")
    if status and (status not in STATUSES or measure in _WHOLE):
        raise ThresholdError(f"{text!r}: cache statuses are {', '.join(STATUSES)}, of answers")
    unit = match["unit"]
    if (unit in {"ms", "s"} and measure not in _TIMES) or (unit == "%" and measure != "errors"):
        raise ThresholdError(f"{text!r}: {measure} is not counted in {unit}")
    if measure in _TIMES and unit is None:
        raise ThresholdError(f"{text!r}: say ms or s")
    bound = float(match["number"]) * _UNITS[unit]
    return Threshold(text, measure, part, status, match["sign"], bound)


def measure(stats: RequestStats, threshold: Threshold) -> float | None:
    """Find what a threshold is about; None where there is no sample."""
    total = stats.total
    if threshold.measure in _WHOLE:
        if not total.num_requests:
            return None
        whole: dict[str, float] = {
            "errors": total.fail_ratio,
            "rps": total.total_rps,
            "requests": float(total.num_requests),
        }
        return whole[threshold.measure]
    row = next(row for row in ROWS if row.name == threshold.measure)
    entry = merged(stats, row, threshold.status)
    if not entry.num_requests:
        return None
    if threshold.part == "avg":
        value = entry.avg_response_time
    elif threshold.part == "min":
        value = float(entry.min_response_time or 0)
    elif threshold.part == "max":
        value = float(entry.max_response_time)
    else:
        value = float(entry.get_response_time_percentile(float(threshold.part[1:]) / 100))
    return value / row.scale


def judge(stats: RequestStats, thresholds: list[Threshold]) -> list[Judgement]:
    """Hold a run against its thresholds."""
    return [Judgement(threshold, measure(stats, threshold)) for threshold in thresholds]
