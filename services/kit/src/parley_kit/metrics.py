"""Metrics that every service has, and the buckets that all histograms share.

Names follow Prometheus: base units, ``_seconds``, ``_total``. Labels never hold
an id of a chat, a user or a run.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

# Seconds. Local calls take a fraction of a millisecond, answers minutes.
LATENCY_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)
# Seconds to the first token: queueing and prefill.
TTFT_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0),
)
# Seconds between two tokens.
ITL_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5),
)
# Tokens of a prompt or an answer.
TOKEN_BUCKETS: Final = tuple(float(2**n) for n in range(18))
# Seconds of one operation of a store.
STORE_BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)

RPC_SERVER_SECONDS = Histogram(
    "parley_rpc_server_seconds",
    "Duration of calls served, a stream's until its end.",
    ["method", "status"],
    buckets=LATENCY_BUCKETS,
)
RPC_SERVER_IN_FLIGHT = Gauge("parley_rpc_server_in_flight", "Calls being served now.", ["method"])
RPC_CLIENT_SECONDS = Histogram(
    "parley_rpc_client_seconds",
    "Duration of calls made, a stream's until its end.",
    ["method", "status"],
    buckets=LATENCY_BUCKETS,
)
RPC_CLIENT_IN_FLIGHT = Gauge(
    "parley_rpc_client_in_flight", "Calls made that have not ended.", ["method"]
)
RPC_SERVER_DEFECTS = Counter(
    "parley_rpc_server_defects_total",
    "Calls that ended with an exception nobody expected.",
    ["method"],
)
TLS_EXPIRY = Gauge(
    "parley_tls_certificate_expiry_timestamp_seconds",
    "When this service's certificate expires; 0: it has none.",
)
TLS_RELOADS = Counter(
    "parley_tls_reloads_total",
    "Changed certificates, taken up (loaded) or bad and left alone (refused).",
    ["outcome"],
)


def begin_call(seconds: Histogram, in_flight: Gauge, method: str) -> Callable[[str], None]:
    """Count a call as begun; the function returned ends it with its status name."""
    gauge = in_flight.labels(method)
    gauge.inc()
    began = perf_counter()

    def end(status: str) -> None:
        gauge.dec()
        seconds.labels(method, status).observe(perf_counter() - began)

    return end
