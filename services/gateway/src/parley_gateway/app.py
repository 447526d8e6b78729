"""The ASGI application: routes, errors, middleware, and its OpenAPI document."""

import functools
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp

from parley_gateway.access.credentials import Authenticator
from parley_gateway.answers import ProblemShape
from parley_gateway.clients.answers import Answers
from parley_gateway.clients.session import SessionClient
from parley_gateway.config import GatewaySettings
from parley_gateway.limits import OpenAnswers
from parley_gateway.routes.chats import ChatRoutes
from parley_gateway.routes.completions import CompletionRoutes
from parley_gateway.routes.events import EventRoutes
from parley_gateway.routes.fleet import FleetRoutes
from parley_gateway.routes.runs import RunRoutes
from parley_gateway.routes.usage import UsageRoutes
from parley_gateway.web import errors, reference
from parley_gateway.web.cors import Cors
from parley_gateway.web.observe import Observe
from parley_gateway.web.routing import StrictRoute

# Read once: it is in a file.
VERSION: Final = version("parley-gateway")

_ABOUT: Final = """\
Chats with a model: stored, streamed, and safe against what crashes.

Unknown fields and parameters are refused. Errors are `application/problem+json` with a stable
`code`; docs/api/errors.md lists them. A streamed answer is `run`, any number of `queued` and
`delta`, then exactly one of `done` and `failed`; `id` is the number of UTF-8 bytes so far.
"""


def build_api(
    settings: GatewaySettings,
    authenticator: Authenticator,
    session: SessionClient,
    fleet: FleetRoutes,
) -> FastAPI:
    """Return the FastAPI application, without the middleware around it."""
    app = FastAPI(
        title="Parley",
        version=VERSION,
        description=_ABOUT,
        # Theirs load scripts from elsewhere; `reference` has ours.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        # The server span is `Observe`'s; FastAPI's own would be a second one.
        telemetry={"tracing": False},
    )
    app.state.settings = settings
    app.state.authenticator = authenticator
    strict = app.router
    strict.route_class = StrictRoute
    answers, open_answers = Answers(session), OpenAnswers(settings.max_open_answers)
    CompletionRoutes(settings, session, answers, open_answers).add_to(strict)
    ChatRoutes(session).add_to(strict)
    RunRoutes(session).add_to(strict)
    EventRoutes(settings, session, answers, open_answers).add_to(strict)
    UsageRoutes(session).add_to(strict)
    fleet.add_to(strict)
    plain = APIRouter()
    fleet.add_open_to(plain)

    @functools.cache
    def page() -> str:
        return reference.render(document(app))

    async def docs() -> Response:
        return HTMLResponse(page(), headers=reference.HEADERS)

    plain.add_api_route("/docs", docs, methods=["GET"], include_in_schema=False)
    app.include_router(plain)
    errors.install(app)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


def wrap(app: FastAPI, settings: GatewaySettings) -> ASGIApp:
    """Put the middleware around the application."""
    inner: ASGIApp = app
    if settings.origins:
        inner = Cors(inner, settings.origins)
    return Observe(inner)


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, made once."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=[{"name": "chats"}, {"name": "runs"}, {"name": "models"}, {"name": "usage"}],
        )
        components = found.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        problem = TypeAdapter(ProblemShape).json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs", {}))
        schemas[ProblemShape.__name__] = problem
        # FastAPI's own error shapes; ours are problems.
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        # Under AUTH=none no credential is needed.
        found["security"] = [{}, {"key": []}]
        app.openapi_schema = _tidy(found)
    return app.openapi_schema


def _tidy(node: Any) -> Any:
    """Drop what pydantic adds and nobody reads: null defaults and made-up titles."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: value if key in ("example", "examples") else _tidy(value)
        for key, value in node.items()
        if not (key == "default" and value is None)
        and not (key == "title" and isinstance(value, str) and "type" in node)
    }
