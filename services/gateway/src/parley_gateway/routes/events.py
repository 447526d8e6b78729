"""Following a run from any place: GET /runs/{runID}/events."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from parley.session.v1 import session_pb2 as pb

from parley_gateway.answers import STREAM_EXAMPLE
from parley_gateway.bounds import MAX_TIMEOUT_SECONDS, NotNull
from parley_gateway.clients.answers import Answers
from parley_gateway.clients.session import SessionClient
from parley_gateway.config import GatewaySettings
from parley_gateway.limits import OpenAnswers
from parley_gateway.problems import Problem
from parley_gateway.routes.common import UserQuery, asked, known_id, responses
from parley_gateway.web import sse
from parley_gateway.web.connection import while_connected

HEADER: Final = "Last-Event-ID"
END: Final = "end"
# As much as a store and a log ever hold, and more: an offset of bytes.
_OFFSET: Final = re.compile(r"0|[1-9][0-9]{0,14}")

PositionHeader = Annotated[
    str | None,
    NotNull(),
    Header(alias=HEADER, description="The `id` of the last event that was received whole."),
]
PositionQuery = Annotated[
    str | None,
    NotNull(),
    Query(
        alias="lastEventID",
        description="The same, where headers cannot be set; the header comes before it.",
    ),
]
_RESPONSES: Final[dict[int, dict[str, Any]]] = {
    200: {
        "description": "The events after that one, to the last of the run",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": STREAM_EXAMPLE}},
    },
    204: {"description": "That was the last event: there are no more"},
}


@dataclass(frozen=True, slots=True)
class EventRoutes:
    """The route's handler, with what it needs."""

    settings: GatewaySettings
    session: SessionClient
    answers: Answers
    open_answers: OpenAnswers

    def add_to(self, router: APIRouter) -> None:
        """Add the route."""
        router.add_api_route(
            "/runs/{runID}/events",
            self.follow_run,
            methods=["GET"],
            tags=["runs"],
            response_model=None,
            response_class=Response,
            responses=responses(_RESPONSES, "bad_event_id", "not_found"),
        )

    async def follow_run(
        self,
        request: Request,
        runID: str,
        position: PositionHeader = None,
        queried: PositionQuery = None,
        user: UserQuery = None,
    ) -> Response:
        """Stream a run's events from any place on, wherever the run is made or kept."""
        who = asked(request, user, existing=True)
        run_id = known_id(runID)
        # An EventSource repeats its URL, query and all, and adds the header: that is newer.
        offset = offset_of(queried if position is None else position)
        if len(request.headers.getlist(HEADER)) > 1:
            raise Problem("bad_event_id", "Last-Event-ID is given more than once.")
        if offset is None:
            # Whether there is such a run is the caller's own affair only if it is theirs.
            await self.session.call(
                lambda stub: stub.GetRun, pb.GetRunRequest(run_id=run_id), who.metadata
            )
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        leave = self.open_answers.enter("stream")
        streaming = False
        try:
            answer = await while_connected(
                request.receive,
                self.answers.attach(
                    run_id,
                    offset,
                    who.metadata,
                    # No run outlives it.
                    timeout=MAX_TIMEOUT_SECONDS + self.settings.answer_margin_seconds,
                ),
            )
            streaming = True
            return sse.AnswerStream(
                answer,
                status=200,
                headers={},
                new_chat=answer.accepted.new_chat,
                request_id=who.request_id,
                began=None,
                heartbeat_seconds=self.settings.heartbeat_seconds,
                released=leave,
                offset=offset,
            )
        finally:
            if not streaming:
                leave()


def offset_of(event_id: str | None) -> int | None:
    """Return the byte offset that an event's id stands for; None: the end.

    Raises ``bad_event_id`` for what no event ever had.
    """
    if event_id is None:
        return 0
    if event_id == END:
        return None
    if _OFFSET.fullmatch(event_id) is None:
        raise Problem("bad_event_id")
    return int(event_id)
