"""What the caller has used: GET /usage."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from parley.session.v1 import session_pb2 as pb

from parley_gateway.answers import UsageReportShape
from parley_gateway.clients.session import SessionClient
from parley_gateway.problems import bad_field
from parley_gateway.routes.common import UserQuery, asked, json_response, responses
from parley_gateway.translate import usage_day_object

MAX_DAYS: Final = 92
_DAY: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"

FromDay = Annotated[
    str,
    Query(
        alias="from",
        pattern=_DAY,
        description="The first day (UTC), as YYYY-MM-DD.",
        examples=["2026-03-01"],
        json_schema_extra={"format": "date"},
    ),
]
ToDay = Annotated[
    str,
    Query(
        alias="to",
        pattern=_DAY,
        description=f"The last day, included; at most {MAX_DAYS} days in all.",
        examples=["2026-03-31"],
        json_schema_extra={"format": "date"},
    ),
]


@dataclass(frozen=True, slots=True)
class UsageRoutes:
    """The route's handler, with what it needs."""

    session: SessionClient

    def add_to(self, router: APIRouter) -> None:
        """Add the route."""
        router.add_api_route(
            "/usage",
            self.read_usage,
            methods=["GET"],
            tags=["usage"],
            response_model=None,
            responses=responses({200: {"model": UsageReportShape}}),
        )

    async def read_usage(
        self, request: Request, first: FromDay, last: ToDay, user: UserQuery = None
    ) -> Response:
        """Sum what the caller has used, by day; days without anything are left out."""
        who = asked(request, user, existing=False)
        days = (_day("to", last) - _day("from", first)).days
        if not 0 <= days < MAX_DAYS:
            raise bad_field("to", f"must be from 0 to {MAX_DAYS - 1} days after from")
        found = await self.session.call(
            lambda stub: stub.GetUsage,
            pb.GetUsageRequest(from_day=first, to_day=last),
            who.metadata,
        )
        return json_response({"days": [usage_day_object(day) for day in found.days]})


def _day(field: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise bad_field(field, "is no day of the calendar") from None
