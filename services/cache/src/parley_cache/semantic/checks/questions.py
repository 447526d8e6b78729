"""The rule on what kind of answer is asked for."""

from __future__ import annotations

from parley_cache.semantic.alignment import Alignment
from parley_cache.semantic.analysis import Analysis
from parley_cache.semantic.languages.pack import words

# Asking for one is not asking for the other.
_APART = {
    frozenset(pair)
    for pair in (
        ("how", "why"),
        ("how", "when"),
        ("how", "where"),
        ("how", "who"),
        ("how", "quantity"),
        ("why", "when"),
        ("why", "where"),
        ("why", "who"),
        ("why", "which"),
        ("why", "quantity"),
        ("why", "yes_no"),
        ("when", "where"),
        ("when", "who"),
        ("where", "who"),
        ("who", "quantity"),
        ("where", "quantity"),
        ("who", "which_time"),
        ("when", "yes_no"),
        ("where", "yes_no"),
        ("who", "yes_no"),
        ("quantity", "yes_no"),
        ("how", "yes_no"),
        ("when", "which"),
        ("where", "which"),
        ("who", "which"),
    )
}


def asked(a: Analysis, b: Analysis, pair: Alignment) -> str | None:  # noqa: ARG001
    """Who, when, where, why, how, how many and whether ask for different answers."""
    mine, other = a.asks, b.asks
    choice = "or" in a.tokens and "or" in b.tokens and "yes_no" in (mine[0], other[0])
    if choice and {mine[0], other[0]} <= {"yes_no", "who", "which"}:
        return None  # "Who pays, he or she?" is "Does he or she pay?"
    apart = (
        frozenset((mine[0], other[0])) in _APART
        or (mine[0] == other[0] == "when" and {mine[1], other[1]} == {"soon", "late"})
        or _counts(a, b)
        or _counts(b, a)
        or _within(a, b)
        or (mine[0] == other[0] == "quantity" and mine[1] != other[1] and not _unit(a, b))
    )
    return "question_word" if apart else None


def _counts(a: Analysis, b: Analysis) -> bool:
    """`a` asks how much of something; `b` asks what or when, and names no measure of it."""
    kind, detail = a.asks
    if kind != "quantity":
        return False
    if b.asks[0] == "which":
        return _MEASURES.get(detail, _MEASURED).isdisjoint(b.present)
    return b.asks[0] == "when" and detail in _UNTIMED


def _within(a: Analysis, b: Analysis) -> bool:
    """Their inner clauses ask for different things: "tell me who", "tell me when"."""
    one, two = (_INNER.intersection(q.tokens) - {q.asks[0]} for q in (a, b))
    return bool(one and two and one.isdisjoint(two))


def _unit(a: Analysis, b: Analysis) -> bool:
    return "unit" in (a.asks[1], b.asks[1])


_UNTIMED = frozenset(("often", "cost", "high", "fast", "size", "far"))
_MEASURED = frozenset(
    [
        "number",
        "count",
        "total",
        "commission",
        "amount",
        "level",
        "dose",
        "price",
        "cost",
        "maximum",
        "minimum",
        "percentage",
        "share",
        "rate",
        "limit",
        "length",
        "size",
        "capacity",
        "distance",
        "temperature",
        "value",
        "range",
        "requirement",
        "margin",
        "score",
        "salary",
        "fee",
        "tip",
        "intake",
        "period",
        "term",
        "age",
        "duration",
        "time",
        "deadline",
        "interval",
        "frequency",
        "schedule",
        "height",
        "speed",
        "weight",
        "depth",
        "width",
        "fare",
        "population",
        "minutes",
        "hours",
        "days",
        "weeks",
        "months",
        "years",
    ]
)
_MEASURES = {
    "long": words(
        "time times duration period term deadline interval schedule minutes hours days weeks "
        "months years limit long length date validity"
    ),
    "cost": words(
        "price prices cost costs fee fees fare rate rates charge charges amount tip salary "
        "premium rent pay money cheap expensive"
    ),
    "high": _MEASURED - frozenset(("length", "width", "depth", "distance", "duration", "time")),
    "far": frozenset(("distance", "far", "miles", "kilometers", "range")),
    "fast": frozenset(("speed", "fast", "rate", "velocity")),
    "often": frozenset(("interval", "frequency", "schedule", "often", "times", "frequently")),
    "old": frozenset(("age", "old", "years")),
}


_INNER = frozenset(("who", "when", "where", "why"))
