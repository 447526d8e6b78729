"""Served and wrong shares, with confidence intervals: plain arithmetic on scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % Wilson interval; `value` is 0 where `total` is."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share itself."""
        return self.count / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % Wilson score interval; (0, 1) where nothing was seen."""
        return wilson(self.count, self.total)

    def as_dict(self) -> dict[str, float | int | list[float]]:
        """For JSON."""
        low, high = self.interval
        return {
            "share": round(self.value, 6),
            "count": self.count,
            "total": self.total,
            "interval": [round(low, 6), round(high, 6)],
        }


def wilson(count: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Returns the Wilson score interval of `count` of `total`."""
    if total <= 0:
        return 0.0, 1.0
    share = count / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclass(frozen=True, slots=True)
class Point:
    """What serving all pairs of at least `threshold` does.

    `served`: of the pairs that mean the same, those served. `wrong`: of the pairs
    served, those that do not (wrong per hit).
    """

    threshold: float
    served: Share
    wrong: Share


def curve(scores: Sequence[float], same: Sequence[bool]) -> list[Point]:
    """Returns a point for each distinct score above 0, from the strictest on."""
    ranked = sorted(zip(scores, same, strict=True), key=lambda item: -item[0])
    total = sum(same)
    points: list[Point] = []
    right = wrong = 0
    for n, (score, is_same) in enumerate(ranked):
        if score <= 0:
            break
        right += is_same
        wrong += not is_same
        if n + 1 == len(ranked) or ranked[n + 1][0] != score:
            points.append(Point(score, Share(right, total), Share(wrong, right + wrong)))
    return points


def best(points: Sequence[Point], most_wrong: float) -> Point | None:
    """Returns the point that serves most with at most `most_wrong` wrong per hit, or None."""
    allowed = [point for point in points if point.wrong.value <= most_wrong]
    return max(allowed, key=lambda p: (p.served.count, p.threshold), default=None)


def at(scores: Sequence[float], same: Sequence[bool], threshold: float) -> Point:
    """Returns what `threshold` does on these pairs."""
    served = [is_same for score, is_same in zip(scores, same, strict=True) if score >= threshold]
    right = sum(served)
    return Point(threshold, Share(right, sum(same)), Share(len(served) - right, len(served)))
