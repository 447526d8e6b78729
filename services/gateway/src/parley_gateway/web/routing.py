"""The route class: what happens to every request before its handler.

In order: the credential (so that nobody unknown makes us read a body), the
query's names, the media type, the body. FastAPI then validates against the
declared models, and its errors become problems in ``errors.py``.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.routing import APIRoute

from parley_gateway.access.credentials import Authenticator
from parley_gateway.problems import Problem
from parley_gateway.web.body import check_media_type, parse_json, read_body
from parley_kit.errors import FieldError

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

MAX_QUERY_PARAMETERS: Final = 16


class StrictRoute(APIRoute):
    """A route that authenticates, and refuses what it does not know."""

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's own handler."""
        validated = super().get_route_handler()
        query_names = frozenset(item.alias for item in self.dependant.query_params)
        has_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            state = request.app.state
            authenticator: Authenticator = state.authenticator
            request.state.credential = authenticator.authenticate(
                request.headers.getlist("authorization")
            )
            check_query(request.scope["query_string"], query_names)
            if has_body:
                check_media_type(request.headers)
                body = await read_body(
                    request.stream(),
                    request.headers,
                    max_bytes=state.settings.max_body_bytes,
                    timeout_seconds=state.settings.body_timeout_seconds,
                )
                # Where Request keeps what it has read: FastAPI finds it there,
                # parsed by our rules.
                request._body = body
                request._json = parse_json(body)
            return await validated(request)

        return handle


def check_query(query: bytes, known: frozenset[str]) -> None:
    """Refuse unknown and repeated parameters and broken escapes. Raises ``invalid_request``."""
    if not query:
        return
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=MAX_QUERY_PARAMETERS,
        )
    except ValueError:
        raise Problem(
            "invalid_request", "The query is not UTF-8, or has too many parameters."
        ) from None
    seen: set[str] = set()
    errors: list[FieldError] = []
    for name, _value in pairs:
        if name not in known:
            errors.append(FieldError(name, "unknown parameter"))
        elif name in seen:
            errors.append(FieldError(name, "given more than once"))
        seen.add(name)
    if errors:
        raise Problem("invalid_request", fields=errors)
