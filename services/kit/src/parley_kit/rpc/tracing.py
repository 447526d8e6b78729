"""The span of a call, on either end: one a call, nothing a message."""

from collections.abc import Iterable, Sequence

import grpc
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from parley_kit import semconv

Metadata = Sequence[tuple[str, str | bytes]]

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("parley_kit.rpc")

# Of a server, only these mean that the server failed; the others are answers.
_SERVER_FAILURES = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)


def extract(metadata: Iterable[tuple[str, str | bytes]] | None) -> Context:
    """Read the caller's W3C trace context from a call's metadata."""
    carrier = {
        key: value
        for key, value in metadata or ()
        if key in ("traceparent", "tracestate") and isinstance(value, str)
    }
    return _propagator.extract(carrier, context=Context())


def inject(span: Span, metadata: Metadata) -> Metadata:
    """Return ``metadata`` with the span's W3C trace context added."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context=trace.set_span_in_context(span, Context()))
    return (*metadata, *carrier.items())


def start_span(method: str, kind: SpanKind, context: Context | None = None) -> Span:
    """Start a call's span; ``method`` is ``package.Service/Method``."""
    return _tracer.start_span(
        method,
        context=context,
        kind=kind,
        attributes={semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: method},
    )


def end_span(span: Span, kind: SpanKind, status: str, code: str = "") -> None:
    """End a call's span with its gRPC status name and, if any, our stable code."""
    if span.is_recording():
        span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, status)
        if code:
            span.set_attribute(semconv.CODE, code)
        failed = status in _SERVER_FAILURES if kind is SpanKind.SERVER else status != "OK"
        if failed:
            span.set_attribute(semconv.ERROR_TYPE, code or status)
            span.set_status(Status(StatusCode.ERROR, code or status))
    span.end()


def status_name(number: int | grpc.StatusCode | None) -> str:
    """Name a gRPC status given as either of the forms that grpc.aio uses."""
    if isinstance(number, grpc.StatusCode):
        return number.name
    return _NAMES.get(number or 0, "UNKNOWN")


_NAMES: dict[int, str] = {status.value[0]: status.name for status in grpc.StatusCode}
