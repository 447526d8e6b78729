"""What the session service counts. Labels never hold an id of a chat, a user or a run."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from parley_kit.metrics import ITL_BUCKETS, LATENCY_BUCKETS, TOKEN_BUCKETS, TTFT_BUCKETS

RUNS = Counter(
    "parley_session_runs_total",
    "Runs committed by this replica, by last state and error code (empty: none).",
    ["state", "code"],
)
LIVE_RUNS = Gauge("parley_session_live_runs", "Answers being made by this replica now.")
FLEET_ROOM = Gauge(
    "parley_session_fleet_room",
    "Answers that the engines could begin at once, as this replica last saw it.",
)
RUN_SECONDS = Histogram(
    "parley_session_run_seconds",
    "From a turn's acceptance to its last event.",
    ["cache"],
    buckets=LATENCY_BUCKETS,
)
TTFT_SECONDS = Histogram(
    "parley_session_ttft_seconds",
    "From a turn's acceptance to the first text before its readers.",
    ["cache"],
    buckets=TTFT_BUCKETS,
)
ITL_SECONDS = Histogram(
    "parley_session_itl_seconds",
    "Mean time between two tokens, once an answer.",
    buckets=ITL_BUCKETS,
)
PROMPT_TOKENS = Counter("parley_session_prompt_tokens_total", "Tokens of prompts.", ["model"])
CACHED_PROMPT_TOKENS = Counter(
    "parley_session_cached_prompt_tokens_total",
    "Tokens of prompts that an engine had in its prefix cache.",
    ["model"],
)
COMPLETION_TOKENS = Counter(
    "parley_session_completion_tokens_total", "Tokens of answers drawn.", ["model"]
)
ANSWER_TOKENS = Histogram(
    "parley_session_answer_tokens", "Tokens of an answer.", buckets=TOKEN_BUCKETS
)
CACHE_VERDICTS = Counter(
    "parley_session_cache_verdicts_total",
    "What the cache said of a question, and why.",
    ["status", "reason"],
)
DRAWN_BESIDE = Counter(
    "parley_session_drawn_beside_total",
    "Drawings begun while the cache still sought: `used`, or thrown away for a `hit`, as "
    "another's answer is `waited` for, or `left`: the run ended, or no engine took it in time.",
    ["outcome"],
)
CACHE_FILLS = Counter(
    "parley_session_cache_fills_total",
    "Answers offered to the cache, by the reason of a refusal (empty: taken).",
    ["reason"],
)
SUMMARIES = Counter(
    "parley_session_summaries_total", "Summaries of chats that were due, by outcome.", ["outcome"]
)
REFUSALS = Counter(
    "parley_session_refusals_total", "Turns refused before acceptance, by code.", ["code"]
)
JOB_RUNS = Counter(
    "parley_session_job_runs_total",
    "Runs of periodic jobs on this replica, by outcome: ok, unfinished (a part was away),"
    " store_unavailable, timed_out, failed, stopped (by this replica's end), skipped (the"
    " run before had not ended).",
    ["job", "outcome"],
)
JOB_SECONDS = Histogram(
    "parley_session_job_seconds",
    "Duration of a run of a periodic job.",
    ["job"],
    buckets=LATENCY_BUCKETS,
)
JOB_ITEMS = Counter(
    "parley_session_job_items_total",
    "What periodic jobs on this replica have handled, by kind.",
    ["job", "kind"],
)
JOB_LAST_SUCCESS = Gauge(
    "parley_session_job_last_success_timestamp_seconds",
    "When the last run that succeeded began, on any replica (sweep_runs: on this one).",
    ["job"],
)
JOB_BACKLOG = Gauge(
    "parley_session_job_backlog",
    "What was left to do after the last run, on any replica; counted no further than 10000.",
    ["job"],
)
QUEUED = Counter("parley_session_queued_runs_total", "Runs that had to wait for the fleet.")
DISPATCHED = Counter(
    "parley_session_dispatched_runs_total", "Runs that were taken from the queue and begun here."
)
ADVANCED = Counter(
    "parley_session_advanced_turns_total",
    "Turns that had waited in their chat and were started when the one before was settled.",
)
TAKEOVERS = Counter(
    "parley_session_takeovers_total",
    "Runs taken over from another replica, by what had been made of them, and why: its lease"
    " ran out, it handed over, or a reader lost the connection to it (hint).",
    ["found", "why"],
)
HANDOVERS = Counter(
    "parley_session_handovers_total",
    "Runs that this replica could not end before it had to stop, by outcome.",
    ["outcome"],
)
LOG_SUSPENSIONS = Counter(
    "parley_session_log_suspensions_total",
    "Answers that went on without a log: for them, takeover is suspended.",
)
ENGINE_CHOICES = Counter(
    "parley_session_engine_choices_total",
    "Engines chosen for a request, by why: warm (drew the chat's last answer), preferred (the"
    " chat hashes to it), overflow (those were busy), least_loaded, in_turn.",
    ["choice"],
)
ENGINE_EJECTIONS = Counter(
    "parley_session_engine_ejections_total",
    "Times an engine was left alone for a while, because requests kept failing on it.",
)
ENGINE_RETRIES = Counter(
    "parley_session_engine_retries_total",
    "Requests sent to another engine, by code and whether a token had been drawn.",
    ["code", "continued"],
)
QUEUE_SIZE = Gauge(
    "parley_session_queue_size", "Runs that wait for the fleet, of all replicas together."
)
ENGINE_DEMAND = Gauge(
    "parley_session_engine_demand",
    "The work there is for a model, in engines: what they have and what waits for them. Every"
    " replica says the same; scale on the maximum.",
    ["model"],
)
DISCOVERY_FAILURES = Counter(
    "parley_session_discovery_failures_total",
    "Times the watch of a Service's endpoints broke: away, gone (listed anew), defect.",
    ["reason"],
)
DISCOVERED_ENGINES = Gauge(
    "parley_session_discovered_engines",
    "Addresses that a Service's EndpointSlices name as ready.",
    ["service"],
)
