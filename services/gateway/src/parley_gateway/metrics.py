"""The gateway's own metrics. Labels hold route templates, never paths or ids."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from parley_kit.metrics import LATENCY_BUCKETS, TTFT_BUCKETS

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

REQUESTS = Counter(
    "parley_gateway_http_requests_total",
    "Requests answered.",
    ["method", "route", "status"],
)
REQUEST_SECONDS = Histogram(
    "parley_gateway_http_request_seconds",
    "Duration of requests, a stream's until its end.",
    ["method", "route"],
    buckets=LATENCY_BUCKETS,
)
TTFT_SECONDS = Histogram(
    "parley_gateway_ttft_seconds",
    "From a request's arrival to the first text of its answer.",
    buckets=TTFT_BUCKETS,
)
OPEN_ANSWERS = Gauge(
    "parley_gateway_open_answers", "Answers being waited for or streamed now.", ["kind"]
)
REFUSED_ANSWERS = Counter(
    "parley_gateway_refused_answers_total", "Answers refused because too many were open."
)
STREAM_BYTES = Counter("parley_gateway_stream_bytes_total", "Bytes of event streams sent.")
LEFT = Counter("parley_gateway_callers_left_total", "Callers that left before their answer ended.")
SESSION_RETRIES = Counter(
    "parley_gateway_session_retries_total",
    "Calls made again on another session replica.",
    ["method"],
)
REATTACHED = Counter(
    "parley_gateway_reattached_runs_total",
    "Runs whose stream broke after acceptance, by how they were followed to their end.",
    ["how"],
)
KEY_RELOADS = Counter(
    "parley_gateway_key_reloads_total", "Looks at a changed key file.", ["result"]
)
