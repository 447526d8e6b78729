"""What is told of a run: a fixed number of spans, and metrics once an answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from parley.inference.v1 import inference_pb2 as pb

from parley_kit import semconv
from parley_session import metrics
from parley_session.domain.model import CacheStatus, Run, RunState

_tracer = trace.get_tracer(__name__)
_propagator = TraceContextTextMapPropagator()


def current_traceparent() -> str:
    """The current span as a W3C traceparent; empty: there is none."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent", "")


@contextmanager
def running(run: Run) -> Iterator[None]:
    """Span one attempt at a run.

    Within the call that began the run it is a child of that call. One that waited, was
    taken over or is made for a repeated call belongs to another trace, or has one of its
    own: it is linked to the one that began it.
    """
    links = []
    carrier = {"traceparent": run.request.traceparent}
    begun = trace.get_current_span(
        _propagator.extract(carrier, context=Context())
    ).get_span_context()
    current = trace.get_current_span().get_span_context()
    if begun.is_valid and begun.trace_id != current.trace_id:
        links.append(trace.Link(begun))
    attributes: dict[str, AttributeValue] = {
        semconv.RUN_ID: run.id,
        semconv.CHAT_ID: run.chat,
        semconv.TENANT: run.tenant,
        semconv.RUN_ATTEMPT: run.attempt,
        semconv.GEN_AI_OPERATION_NAME: semconv.GEN_AI_OPERATION_CHAT,
        semconv.GEN_AI_CONVERSATION_ID: run.chat,
        semconv.GEN_AI_REQUEST_MODEL: run.request.model,
        semconv.GEN_AI_REQUEST_MAX_TOKENS: run.request.options.max_tokens,
        semconv.GEN_AI_REQUEST_TEMPERATURE: run.request.options.temperature,
    }
    with _tracer.start_as_current_span("run", attributes=attributes, links=links):
        yield


class Drawing:
    """The spans of one drawing: queue wait, prefill and decode, made from what is reported."""

    def __init__(self) -> None:
        self._began = time.time_ns()
        self._first_token: int | None = None

    def started(self, report: pb.GenerationStarted) -> None:
        """Take note of the engine's report; made once, with the first token."""
        queue = self._began + int(report.queue_seconds * 1e9)
        first = max(queue, self._began + int(report.first_token_seconds * 1e9))
        self._first_token = first
        _tracer.start_span(
            "queue wait",
            start_time=self._began,
            attributes={semconv.QUEUE_SECONDS: report.queue_seconds},
        ).end(queue)
        _tracer.start_span(
            "prefill",
            start_time=queue,
            attributes={
                semconv.GEN_AI_USAGE_INPUT_TOKENS: report.prompt_tokens,
                semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: report.cached_prompt_tokens,
                semconv.PREFILL_SECONDS: (first - queue) / 1e9,
            },
        ).end(first)

    def ended(self, tokens: int) -> None:
        """Take note of the end; `tokens` were drawn."""
        if self._first_token is None:
            return
        now = max(time.time_ns(), self._first_token)
        _tracer.start_span(
            "decode",
            start_time=self._first_token,
            attributes={
                semconv.GEN_AI_USAGE_OUTPUT_TOKENS: tokens,
                semconv.DECODE_SECONDS: (now - self._first_token) / 1e9,
            },
        ).end(now)


def committed(run: Run) -> None:
    """Count a run that this replica has committed."""
    span = trace.get_current_span()
    span.set_attribute(semconv.RUN_STATE, run.state.value)
    if run.finish_reason is not None:
        span.set_attribute(semconv.GEN_AI_RESPONSE_FINISH_REASONS, (run.finish_reason.value,))
    span.set_attribute(semconv.GEN_AI_USAGE_INPUT_TOKENS, run.usage.prompt_tokens)
    span.set_attribute(semconv.GEN_AI_USAGE_OUTPUT_TOKENS, run.usage.completion_tokens)
    if run.error is not None:
        span.set_attribute(semconv.CODE, run.error.code)
        span.set_status(trace.Status(trace.StatusCode.ERROR, run.error.code))
    metrics.RUNS.labels(run.state.value, run.error.code if run.error else "").inc()
    hit = run.cache is not None and run.cache.status in (CacheStatus.EXACT, CacheStatus.SEMANTIC)
    cache = run.cache.status.value if run.cache else ""
    first, finished = run.timings.first_token, run.timings.finished
    if first is not None:
        metrics.TTFT_SECONDS.labels(cache).observe(first)
    if finished is not None:
        metrics.RUN_SECONDS.labels(cache).observe(finished)
    if hit:
        return
    tokens = run.usage.completion_tokens
    model = run.request.model
    metrics.PROMPT_TOKENS.labels(model).inc(run.usage.prompt_tokens)
    metrics.CACHED_PROMPT_TOKENS.labels(model).inc(run.usage.cached_prompt_tokens)
    metrics.COMPLETION_TOKENS.labels(model).inc(tokens)
    if run.state is RunState.COMPLETED:
        metrics.ANSWER_TOKENS.observe(tokens)
    if first is not None and finished is not None and tokens > 1:
        metrics.ITL_SECONDS.observe(max(0.0, finished - first) / (tokens - 1))
