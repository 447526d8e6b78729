"""Metrics of a replica, under names that scaling rules and dashboards rely on.

vLLM's own (``vllm:…``) stand beside them on the same port. Nothing here is touched per token.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from parley_kit.metrics import ITL_BUCKETS, TOKEN_BUCKETS, TTFT_BUCKETS

RUNNING: Final = Gauge(
    "parley_inference_running", "Requests whose first token has been drawn and whose last has not."
)
WAITING: Final = Gauge(
    "parley_inference_waiting", "Requests let in whose first token has not been drawn."
)
QUEUED_TOKENS: Final = Gauge(
    "parley_inference_queued_tokens", "Prompt tokens of the requests that wait."
)
KV_FREE_RATIO: Final = Gauge(
    "parley_inference_kv_free_ratio", "Share of the KV cache that is free, 0 to 1."
)
READY: Final = Gauge("parley_inference_ready", "1 while new requests are served.")
LOADING_SECONDS: Final = Gauge(
    "parley_inference_loading_seconds",
    "Time that the engine's start has taken so far, or took once it is over.",
)
MAX_RUNNING: Final = Gauge("parley_inference_max_running", "Requests in the batch at most.")
REFUSED: Final = Counter(
    "parley_inference_refused_total", "Requests refused at the door.", ["reason"]
)
QUEUE_SECONDS: Final = Histogram(
    "parley_inference_queue_seconds",
    "Arrival to the first scheduling by the engine.",
    buckets=TTFT_BUCKETS,
)
TTFT_SECONDS: Final = Histogram(
    "parley_inference_ttft_seconds",
    "Arrival to the first token.",
    buckets=TTFT_BUCKETS,
)
ITL_SECONDS: Final = Histogram(
    "parley_inference_itl_seconds",
    "Time between two tokens, the mean of one answer.",
    buckets=ITL_BUCKETS,
)
PROMPT_TOKENS: Final = Counter(
    "parley_inference_prompt_tokens_total", "Prompt tokens of requests that drew a token."
)
CACHED_PROMPT_TOKENS: Final = Counter(
    "parley_inference_cached_prompt_tokens_total",
    "Of the prompt tokens, those served from the engine's prefix cache.",
)
COMPLETION_TOKENS: Final = Counter(
    "parley_inference_completion_tokens_total", "Tokens drawn and taken into answers."
)
ANSWER_TOKENS: Final = Histogram(
    "parley_inference_answer_tokens", "Tokens of whole answers.", buckets=TOKEN_BUCKETS
)
FINISHED: Final = Counter(
    "parley_inference_finished_total",
    "Requests ended, by how: stop, length, cancelled, or the code of an error.",
    ["reason"],
)
