"""What the platform says of itself: models, health, and where to read on."""

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from parley.session.v1 import session_pb2 as pb

from parley_gateway.answers import ModelListShape
from parley_gateway.clients.session import SessionClient
from parley_gateway.routes.common import UserQuery, asked, json_response, responses
from parley_gateway.translate import model_object


@dataclass(slots=True)
class FleetRoutes:
    """The routes' handlers, with what they need. ``stopping`` turns readiness off."""

    session: SessionClient
    stopping: bool = False

    @property
    def ready(self) -> bool:
        """Whether a request would find a session replica, and this process will stay."""
        return self.session.ready and not self.stopping

    def add_to(self, router: APIRouter) -> None:
        """Add the route that needs a caller."""
        router.add_api_route(
            "/models",
            self.list_models,
            methods=["GET"],
            tags=["models"],
            response_model=None,
            responses=responses({200: {"model": ModelListShape}}, "engine_unavailable"),
        )

    def add_open_to(self, router: APIRouter) -> None:
        """Add the routes that anybody may ask."""
        for path, handler in (
            ("/", self.welcome),
            ("/healthz", self.healthz),
            ("/readyz", self.readyz),
        ):
            router.add_api_route(path, handler, methods=["GET"], include_in_schema=False)

    async def list_models(self, request: Request, user: UserQuery = None) -> Response:
        """List the models that the fleet serves now."""
        who = asked(request, user, existing=False)
        found = await self.session.call(
            lambda stub: stub.ListModels, pb.ListModelsRequest(), who.metadata
        )
        return json_response({"models": [model_object(model) for model in found.models]})

    async def welcome(self) -> Response:
        """Say where to read on."""
        return json_response({"name": "Parley", "docs": "/docs", "openapi": "/openapi.json"})

    async def healthz(self) -> Response:
        """Say that the process lives."""
        return Response("ok\n", media_type="text/plain")

    async def readyz(self) -> Response:
        """Say whether requests can be served."""
        if self.ready:
            return Response("ready\n", media_type="text/plain")
        return Response("not ready\n", status_code=503, media_type="text/plain")
