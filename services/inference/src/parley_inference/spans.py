"""The three phases of a request as spans below the call's: queue, prefill, decode.

They are made when the request has ended, from times noted on the way: a fixed number a request.
"""

import time
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.propagate import inject

from parley_kit import semconv

_tracer = trace.get_tracer(__name__)


@dataclass(slots=True)
class Timeline:
    """Moments of one request, in ``time.monotonic()`` seconds; 0: did not happen."""

    arrived: float
    scheduled: float = 0.0
    first_token: float = 0.0
    ended: float = 0.0


def trace_headers() -> dict[str, str]:
    """The current span as W3C headers, for engines that trace; empty if it is not recorded."""
    headers: dict[str, str] = {}
    if trace.get_current_span().is_recording():
        inject(headers)
    return headers


def describe_request(
    *, engine: str, model: str, request_id: str, max_tokens: int, temperature: float
) -> None:
    """Put what is asked for on the call's span."""
    trace.get_current_span().set_attributes(
        {
            semconv.GEN_AI_OPERATION_NAME: semconv.GEN_AI_OPERATION_CHAT,
            semconv.GEN_AI_REQUEST_MODEL: model,
            semconv.GEN_AI_REQUEST_MAX_TOKENS: max_tokens,
            semconv.GEN_AI_REQUEST_TEMPERATURE: temperature,
            semconv.ENGINE: engine,
            semconv.REQUEST_ID: request_id,
        }
    )


def describe_usage(
    *, prompt_tokens: int, cached_prompt_tokens: int, completion_tokens: int, reason: str
) -> None:
    """Put what was used, and how it ended, on the call's span."""
    trace.get_current_span().set_attributes(
        {
            semconv.GEN_AI_USAGE_INPUT_TOKENS: prompt_tokens,
            semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: cached_prompt_tokens,
            semconv.GEN_AI_USAGE_OUTPUT_TOKENS: completion_tokens,
            semconv.GEN_AI_RESPONSE_FINISH_REASONS: (reason,),
        }
    )


def record_phases(times: Timeline) -> None:
    """Make the spans of the phases that took place."""
    if not trace.get_current_span().is_recording():
        return
    # Spans are dated by the wall clock, durations taken by the monotonic one.
    offset = time.time() - time.monotonic()
    scheduled = times.scheduled or times.first_token or times.ended
    phases = [("inference.queue", times.arrived, scheduled)]
    if times.scheduled or times.first_token:
        phases.append(("inference.prefill", scheduled, times.first_token or times.ended))
    if times.first_token:
        phases.append(("inference.decode", times.first_token, times.ended))
    for name, begin, end in phases:
        span = _tracer.start_span(name, start_time=int((begin + offset) * 1e9))
        span.end(end_time=int((max(begin, end) + offset) * 1e9))
