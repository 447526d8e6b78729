"""What a load test says at its end, and its exit code."""

from __future__ import annotations

from locust.stats import RequestStats

from parley_loadtest.health import Health
from parley_loadtest.rows import ROWS, STATUSES, merged
from parley_loadtest.thresholds import Threshold, judge

OK = 0
REQUESTS_FAILED = 1
THRESHOLDS_MISSED = 3

_UNITS = {"ttft": ("ms", 1.0), "itl": ("ms", 1e-3), "gap": ("ms", 1.0), "tokens": ("/s", 1.0)}
_TITLES = {
    "ttft": "time to first token",
    "itl": "inter-token latency",
    "gap": "gap between pieces",
    "tokens": "tokens per second",
}


def exit_code(stats: RequestStats, thresholds: list[Threshold]) -> int:
    """0: all well; 3: a threshold was missed; 1: requests failed and no threshold on errors.

    A threshold on errors says how many failures are acceptable.
    """
    if not all(judgement.reached for judgement in judge(stats, thresholds)):
        return THRESHOLDS_MISSED
    judged = any(threshold.measure == "errors" for threshold in thresholds)
    if stats.total.num_failures and not judged:
        return REQUESTS_FAILED
    if not stats.total.num_requests:
        return REQUESTS_FAILED
    return OK


def summary(stats: RequestStats, thresholds: list[Threshold], healths: list[Health]) -> str:
    """The run in a few lines: answers by cache status, thresholds, and the generator."""
    lines = [
        "",
        "Answers",
        f"  {'':24}{'cache':10}{'count':>8}{'avg':>10}{'p50':>10}{'p95':>10}{'p99':>10}",
    ]
    for row in ROWS:
        unit, scale = _UNITS[row.name]
        for status in STATUSES:
            entry = merged(stats, row, status)
            if not entry.num_requests:
                continue
            numbers = [
                entry.avg_response_time,
                *(entry.get_response_time_percentile(share) for share in (0.5, 0.95, 0.99)),
            ]
            shown = "".join(f"{float(number) * scale:>10.4g}" for number in numbers)
            title = f"{_TITLES[row.name]} {unit}"
            lines.append(f"  {title:24}{status:10}{entry.num_requests:>8}{shown}")
    total = stats.total
    lines += [
        "",
        f"Requests: {total.num_requests}, failed: {total.num_failures} "
        f"({total.fail_ratio:.2%}), {total.total_rps:.1f} per second",
    ]
    if thresholds:
        lines += ["", "Thresholds", *(f"  {one}" for one in judge(stats, thresholds))]
    warnings = {warning for health in healths if (warning := health.warning())}
    lines += ["", *(f"WARNING: {warning}" for warning in sorted(warnings))]
    if not warnings:
        worst = max((health.worst_cpu for health in healths), default=0.0)
        lines.append(f"The load generator kept up (at most {worst:.0%} of a core a process).")
    return "\n".join(lines)
