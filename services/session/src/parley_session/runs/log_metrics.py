"""Metrics of the run log: an observation a command or pipeline, none an entry."""

from __future__ import annotations

from time import perf_counter

from prometheus_client import Gauge, Histogram

from parley_kit.metrics import STORE_BUCKETS

LOG_SECONDS = Histogram(
    "parley_session_log_seconds",
    "Duration of the run log's commands; writes of one tick count once.",
    ["operation", "outcome"],
    buckets=STORE_BUCKETS,
)
LOG_FOLLOWERS = Gauge("parley_session_log_followers", "Readers that wait for entries of the log.")


def observe(operation: str, outcome: str, began: float) -> None:
    """Count an operation that began at `began` of `perf_counter`."""
    LOG_SECONDS.labels(operation, outcome).observe(perf_counter() - began)
