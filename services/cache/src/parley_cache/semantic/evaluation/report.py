"""The figures of a judged set: as JSON, as a table with a text plot, and as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from parley_cache.semantic.calibration import Calibration
from parley_cache.semantic.evaluation.figures import Point, Share, at, best, curve
from parley_cache.semantic.evaluation.judging import Judged

LIMITS = (0.01, 0.05)
_WIDTH, _HEIGHT = 60, 15


def figures(judged: Judged, calibration: Calibration, split: str) -> dict[str, Any]:
    """Returns all figures of a set as plain values."""
    same = judged.same
    ways = {"cosine": list(judged.cosines), "verdict": judged.scores}
    curves = {name: curve(scores, same) for name, scores in ways.items()}
    served = [verdict.same for verdict in judged.verdicts]
    shipped = at([float(one) for one in served], same, 1.0)
    return {
        "set": judged.pairs.name,
        "sha256": judged.pairs.sha256,
        "split": split or "all",
        "pairs": len(same),
        "same": sum(same),
        "model": calibration.model,
        "calibration": dict(calibration.provenance),
        "judge": _judge(calibration),
        "as_shipped": _point(replace(shipped, threshold=_threshold(calibration))),
        "limits": {
            f"{limit:g}": {name: _point(best(points, limit)) for name, points in curves.items()}
            for limit in LIMITS
        },
        "categories": _categories(judged),
        "refused": dict(judged.refused.most_common()),
        "curves": {
            name: [[round(p.served.value, 4), round(p.wrong.value, 4)] for p in _thin(points)]
            for name, points in curves.items()
        },
    }


def _threshold(calibration: Calibration) -> float:
    """The one that counts in English."""
    return calibration.judge.threshold if calibration.judge else calibration.threshold


def _judge(calibration: Calibration) -> dict[str, Any] | None:
    if calibration.judge is None:
        return None
    return {"identity": calibration.judge.identity, **calibration.judge.provenance}


def _categories(judged: Judged) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    names = sorted({pair.category for pair in judged.pairs.pairs})
    for name in names:
        rows = [
            (pair.same, verdict)
            for pair, verdict in zip(judged.pairs.pairs, judged.verdicts, strict=True)
            if pair.category == name
        ]
        right = [verdict.same for same, verdict in rows if same]
        traps = [verdict.same for same, verdict in rows if not same]
        found[name] = {
            "pairs": len(rows),
            "served": Share(sum(right), len(right)).as_dict() if right else None,
            "traps_served": Share(sum(traps), len(traps)).as_dict() if traps else None,
        }
    return found


def _point(point: Point | None) -> dict[str, Any] | None:
    if point is None:
        return None
    return {
        "threshold": round(point.threshold, 6),
        "served": point.served.as_dict(),
        "wrong_per_hit": point.wrong.as_dict(),
    }


def _thin(points: Sequence[Point], most: int = 400) -> Sequence[Point]:
    step = max(1, len(points) // most)
    return points[::step]


def as_text(found: Mapping[str, Any]) -> str:
    """Returns the figures as a page of text."""
    lines = [
        f"{found['set']} · split {found['split']} · {found['pairs']} pairs, {found['same']} of "
        f"them with the same meaning · model {found['model']}",
        "",
        f"{'':34}{'served':>22}   {'wrong per hit':>24}",
        _line("as shipped, whole verdict", found["as_shipped"]),
    ]
    for limit, ways in found["limits"].items():
        lines += [
            _line(f"at most {float(limit):.0%} wrong, {label}", ways[name])
            for name, label in (("cosine", "cosine alone"), ("verdict", "whole verdict"))
        ]
    lines += ["", f"{'category':20}{'pairs':>6}{'served (same)':>26}{'served (traps: wrong)':>30}"]
    for name, row in found["categories"].items():
        lines.append(
            f"{name:20}{row['pairs']:>6}{_share(row['served']):>26}{_share(row['traps_served']):>30}"
        )
    if found["refused"]:
        reasons = ", ".join(f"{name} {count}" for name, count in found["refused"].items())
        lines += ["", f"not served though the same: {reasons}"]
    return "\n".join([*lines, "", plot(found["curves"])])


def _line(name: str, point: Mapping[str, Any] | None) -> str:
    if point is None:
        return f"{name:34}{'nothing':>22}"
    return f"{name:34}{_share(point['served']):>22}   {_share(point['wrong_per_hit']):>24}"


def _share(share: Mapping[str, Any] | None) -> str:
    if share is None:
        return "-"
    low, high = share["interval"]
    return f"{share['share']:.1%} [{low:.1%}, {high:.1%}]"


def plot(curves: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Returns a text plot: served share to the right, wrong share per hit upwards."""
    top = 0.5
    grid = [[" "] * (_WIDTH + 1) for _ in range(_HEIGHT + 1)]
    for mark, name in (("c", "cosine"), ("v", "verdict")):
        for served, wrong in curves.get(name, ()):
            row = _HEIGHT - round(min(wrong, top) / top * _HEIGHT)
            grid[row][round(served * _WIDTH)] = mark
    lines = [
        f"{top * (_HEIGHT - n) / _HEIGHT:>5.0%} |{''.join(row).rstrip()}"
        for n, row in enumerate(grid)
    ]
    axis = f"{'':6}+{'-' * _WIDTH}"
    return "\n".join(
        [
            "wrong per hit (cut at 50 %)   c cosine alone, v whole verdict",
            *lines,
            axis,
            f"{'':7}0 %{'served share':^{_WIDTH - 8}}100 %",
        ]
    )


def as_svg(found: Mapping[str, Any]) -> str:
    """Returns the same plot as an SVG file."""
    width, height, edge = 640, 400, 56

    def place(served: float, wrong: float) -> str:
        x = edge + served * (width - 2 * edge)
        y = height - edge - min(wrong, 0.5) / 0.5 * (height - 2 * edge)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{edge},{edge} V{height - edge} H{width - edge}" fill="none" stroke="#444"/>',
    ]
    for n in range(6):
        x, y = place(n / 5, 0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 18}" text-anchor="middle">{n * 20} %</text>')
        x, y = place(0, n / 10).split(",")
        parts.append(f'<text x="{float(x) - 8}" y="{y}" text-anchor="end">{n * 10} %</text>')
    limit = place(0, 0.01).split(",")[1]
    parts.append(
        f'<path d="M{edge},{limit} H{width - edge}" stroke="#c33" stroke-dasharray="4 3"/>'
    )
    for name, colour in (("cosine", "#888"), ("verdict", "#1668b8")):
        points = " ".join(place(served, wrong) for served, wrong in found["curves"][name])
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    parts += [
        f'<text x="{width / 2}" y="{height - 12}" text-anchor="middle">served share</text>',
        f'<text x="{edge}" y="{edge - 24}">wrong per hit (cut at 50 %): cosine alone grey, '
        "whole verdict blue, 1 % red</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
