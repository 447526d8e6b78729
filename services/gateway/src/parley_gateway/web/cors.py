"""CORS for the origins that the operator names; a refusal is a problem like any other."""

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from parley_gateway.problems import MEDIA_TYPE, Problem

METHODS: Final = ("GET", "POST", "PATCH", "DELETE")
REQUEST_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "X-Request-ID",
    "X-User-ID",
    "traceparent",
    "tracestate",
)
EXPOSED_HEADERS: Final = ("Location", "Retry-After", "X-Request-ID", "Idempotent-Replayed")


class Cors(CORSMiddleware):
    """Starlette's middleware with our lists. Credentials are headers, so no cookies are allowed."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer preflights here; add headers to everything else."""
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            if "origin" in headers and "access-control-request-method" in headers:
                response = self.preflight_response(request_headers=headers)
                if response.status_code != 200:
                    response = _refused(response, scope["state"]["request_id"])
                await response(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def _refused(response: Response, request_id: str) -> Response:
    problem = Problem("invalid_request", bytes(response.body).decode())
    return Response(
        problem.encoded(request_id),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers={"Vary": response.headers["Vary"]},
    )
