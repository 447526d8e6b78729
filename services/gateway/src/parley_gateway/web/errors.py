"""Where every error becomes an HTTP answer."""

import logging
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.routing import Route

from parley_gateway.problems import MEDIA_TYPE, Problem, from_service_error
from parley_gateway.web.connection import CallerLeft
from parley_kit.errors import FieldError, ServiceError

log = logging.getLogger(__name__)

# Never seen by anybody, as the caller has gone; it tells the metrics so.
STATUS_CALLER_LEFT: Final = 499
_CODE_BY_STATUS: Final = {404: "not_found", 405: "method_not_allowed"}
_MESSAGES: Final = {"missing": "is required", "extra_forbidden": "unknown field"}


def install(app: FastAPI) -> None:
    """Answer every error with a problem."""

    async def on_problem(request: Request, error: Exception) -> Response:
        return problem_response(request, _as_problem(request, error))

    async def on_caller_left(_request: Request, _error: Exception) -> Response:
        return Response(status_code=STATUS_CALLER_LEFT)

    for kind in (Problem, RequestValidationError, HTTPException, ServiceError, Exception):
        app.add_exception_handler(kind, on_problem)
    app.add_exception_handler(CallerLeft, on_caller_left)


def problem_response(request: Request, problem: Problem) -> Response:
    """Return the answer that tells a problem; the request's log line names it too."""
    request.state.problem = problem.code
    return Response(
        problem.encoded(request.state.request_id),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store"} | problem.headers,
    )


def _as_problem(request: Request, error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return Problem("invalid_request", fields=[_field_error(item) for item in error.errors()])
    if isinstance(error, ServiceError):
        problem = from_service_error(error)
        if problem.code == "internal":
            log.error(
                "session answered what nobody expected: %s",
                error,
                extra={"request_id": request.state.request_id},
            )
        return problem
    if isinstance(error, HTTPException) and error.status_code in _CODE_BY_STATUS:
        code = _CODE_BY_STATUS[error.status_code]
        headers = {"Allow": _allowed(request)} if code == "method_not_allowed" else {}
        return Problem(code, headers=headers)
    # Raised again once it is answered, and logged by the outermost layer.
    return Problem("internal")


def _field_error(item: ErrorDetails) -> FieldError:
    """Name the field as the caller wrote it, and say what is wrong without repeating its value."""
    where, *path = item["loc"]
    name = ".".join(str(part) for part in path) or str(where)
    return FieldError(name, _MESSAGES.get(item["type"], item["msg"]))


def _allowed(request: Request) -> str:
    """Return the methods of all routes that have the request's path."""
    path = request.scope["path"]
    methods = {
        method
        for route in request.app.routes
        if isinstance(route, Route) and route.path_regex.match(path)
        for method in route.methods or ()
    }
    return ", ".join(sorted(methods))
