"""Reading and cancelling runs."""

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response
from parley.session.v1 import session_pb2 as pb

from parley_gateway.answers import RunShape
from parley_gateway.clients.session import SessionClient
from parley_gateway.problems import from_run_failure
from parley_gateway.routes.common import UserQuery, asked, json_response, known_id, responses
from parley_gateway.translate import Json, run_object

# How long a cancel waits for the end of the run to be stored.
CANCEL_WAIT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class RunRoutes:
    """The routes' handlers, with what they need."""

    session: SessionClient

    def add_to(self, router: APIRouter) -> None:
        """Add the routes."""
        router.add_api_route(
            "/runs/{runID}",
            self.read_run,
            methods=["GET"],
            tags=["runs"],
            response_model=None,
            responses=responses({200: {"model": RunShape}}, "not_found"),
        )
        router.add_api_route(
            "/runs/{runID}/cancel",
            self.cancel_run,
            methods=["POST"],
            status_code=202,
            tags=["runs"],
            response_model=None,
            responses=responses({202: {"model": RunShape}}, "not_found"),
        )

    async def read_run(
        self,
        request: Request,
        runID: str,
        user: UserQuery = None,
    ) -> Response:
        """Read a run: its state, and what came of it."""
        who = asked(request, user, existing=True)
        found = await self.session.call(
            lambda stub: stub.GetRun, pb.GetRunRequest(run_id=known_id(runID)), who.metadata
        )
        return json_response(_run(found.run, who.request_id))

    async def cancel_run(
        self,
        request: Request,
        runID: str,
        user: UserQuery = None,
    ) -> Response:
        """Stop a run; what there is of the answer is kept. One that has ended stays as it is."""
        who = asked(request, user, existing=True)
        found = await self.session.call(
            lambda stub: stub.CancelRun,
            pb.CancelRunRequest(run_id=known_id(runID), wait_seconds=CANCEL_WAIT_SECONDS),
            who.metadata,
        )
        return json_response(_run(found.run, who.request_id), 202)


def _run(run: pb.Run, request_id: str) -> Json:
    error = None
    if run.HasField("error"):
        error = from_run_failure(
            run.error.code, run.error.detail, run_id=run.run_id, chat_id=run.chat_id
        ).body(request_id)
    return run_object(run, error)
