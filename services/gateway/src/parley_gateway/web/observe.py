"""The outermost layer: request id, server span, metrics, a log line, and the last resort.

Not opentelemetry-instrumentation-asgi: even with its send and receive spans
excluded it works on every message sent (attributes, trailers, a span lookup),
which on a stream means on every token: 1.0 µs a message where measured, and
0.1 µs here, where a message passes through one comparison.
"""

import logging
import re
from time import perf_counter
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parley_gateway import metrics
from parley_gateway.problems import MEDIA_TYPE, Problem
from parley_gateway.web.errors import STATUS_CALLER_LEFT
from parley_kit import semconv
from parley_kit.ids import uuid7

log = logging.getLogger(__name__)

REQUEST_ID_HEADER: Final = "X-Request-ID"
UNMATCHED: Final = "(none)"
# Asked every few seconds by probes: counted, but neither traced nor logged.
QUIET: Final = frozenset({"/healthz", "/readyz"})
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_propagator: Final = TraceContextTextMapPropagator()


class Observe:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tracer = trace.get_tracer("parley_gateway")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID_HEADER, "")
        request_id = given if _SANE_ID.fullmatch(given) else uuid7()
        scope.setdefault("state", {})["request_id"] = request_id
        method = scope["method"] if scope["method"] in metrics.METHODS else "(other)"
        status = 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        span: Span = trace.INVALID_SPAN
        if scope["path"] not in QUIET:
            span = self._tracer.start_span(
                method,
                context=_propagator.extract(carrier, context=Context()),
                kind=SpanKind.SERVER,
                attributes={
                    "http.request.method": method,
                    "url.scheme": scope["scheme"],
                    semconv.REQUEST_ID: request_id,
                },
            )
        token = attach(trace.set_span_in_context(span, Context()))
        began = perf_counter()
        try:
            await self._app(scope, receive, send_observed)
        except Exception:
            log.exception("a request failed", extra={"request_id": request_id})
            if not status:
                await _send_internal(send_observed, request_id)
        finally:
            seconds = perf_counter() - began
            route = getattr(scope.get("route"), "path", UNMATCHED)
            metrics.REQUESTS.labels(method, route, str(status or STATUS_CALLER_LEFT)).inc()
            metrics.REQUEST_SECONDS.labels(method, route).observe(seconds)
            if span is not trace.INVALID_SPAN:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", status)
                if status >= 500 or not status:
                    span.set_status(Status(StatusCode.ERROR))
                log.info(
                    "request",
                    extra={
                        "method": method,
                        "route": route,
                        "status": status,
                        "seconds": round(seconds, 6),
                        "request_id": request_id,
                        **_problem_of(scope),
                    },
                )
            span.end()
            detach(token)


def _problem_of(scope: Scope) -> dict[str, str]:
    """Why a request was refused, for its log line: the status alone does not tell."""
    code = scope["state"].get("problem")
    return {"code": code} if code else {}


async def _send_internal(send: Send, request_id: str) -> None:
    body = Problem("internal").encoded(request_id)
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
