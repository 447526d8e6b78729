"""What a run of the simulation, or a real one, comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol, TypeVar

from parley_simulation.engine import Request

Item = TypeVar("Item")
Found = TypeVar("Found")


class RunAll(Protocol):
    """Runs a function on each of many items, in processes of their own; keeps the order."""

    def __call__(self, run: Callable[[Item], Found], items: Sequence[Item], /) -> Sequence[Found]:
        """Return what each came to."""
        ...


# What a user is promised: seconds to the first token, and a token after it.
SLO_TTFT = 1.0
SLO_TPOT = 0.06


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of the answers that arrived while it was measured. Times in seconds."""

    answers: int
    ttft_p50: float
    ttft_p99: float
    tpot_p50: float
    tpot_p99: float
    # Share of the answers within both bounds, and such answers a second.
    slo_share: float
    goodput: float
    # Share of the prompts' tokens that were in a prefix cache.
    prefix_hits: float


def result(
    requests: Iterable[Request],
    since: float,
    until: float,
    ttft: float = SLO_TTFT,
    tpot: float = SLO_TPOT,
) -> Result:
    """Sum up the requests that arrived between two times."""
    counted = [r for r in requests if since <= r.arrived < until]
    if not counted:
        raise ValueError("no answer ended while it was measured")
    good = sum(r.ttft <= ttft and r.tpot <= tpot for r in counted)
    firsts, paces = sorted(r.ttft for r in counted), sorted(r.tpot for r in counted)
    return Result(
        answers=len(counted),
        ttft_p50=quantile(firsts, 0.5),
        ttft_p99=quantile(firsts, 0.99),
        tpot_p50=quantile(paces, 0.5),
        tpot_p99=quantile(paces, 0.99),
        slo_share=good / len(counted),
        goodput=good / (until - since),
        prefix_hits=sum(r.cached_tokens for r in counted) / sum(r.prompt_tokens for r in counted),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the sorted values lies."""
    return values[min(len(values) - 1, int(share * len(values)))]


def middle(results: Sequence[Result], name: str) -> float:
    """Return the median of a figure over several seeds."""
    return float(median(getattr(found, name) for found in results))


def spread(results: Sequence[Result], name: str) -> float:
    """Return how far a figure's extremes lie apart over several seeds."""
    values = [getattr(found, name) for found in results]
    return float(max(values) - min(values))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
