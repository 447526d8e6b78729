"""What the routes share: who asks, ids in paths, answers, and their documentation."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import orjson
from fastapi import Query, Request, Response

from parley_gateway.access.credentials import USER_HEADER, Caller, identify
from parley_gateway.answers import ProblemShape
from parley_gateway.bounds import NotNull, UserID
from parley_gateway.clients.session import Metadata, metadata_for
from parley_gateway.problems import MEDIA_TYPE, TABLE, Problem
from parley_kit.ids import is_uuid

_MESSAGE_ID: Final = re.compile(r"([0-9a-f-]{36})-(0|[1-9][0-9]{0,9})")

UserQuery = Annotated[UserID | None, NotNull(), Query(alias="userID")]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's caller, and what session is told of both."""

    caller: Caller
    request_id: str
    metadata: Metadata


def asked(
    request: Request, query_user: str | None, *, existing: bool, body_user: str | None = None
) -> Asked:
    """Decide who asks. Raises Problem."""
    caller = identify(
        request.state.credential,
        query_user=query_user,
        header_users=request.headers.getlist(USER_HEADER),
        body_user=body_user,
        existing=existing,
    )
    request_id: str = request.state.request_id
    return Asked(caller, request_id, metadata_for(caller, request_id))


def known_id(text: str) -> str:
    """Return an id from a path; one that cannot exist is not found."""
    if not is_uuid(text):
        raise Problem("not_found")
    return text


def is_message_of(chat_id: str, message_id: str) -> bool:
    """Whether an id has the form of a message of the chat."""
    parts = _MESSAGE_ID.fullmatch(message_id)
    return parts is not None and parts[1] == chat_id


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return JSON that no one keeps."""
    return Response(
        orjson.dumps(content),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store"} | (headers or {}),
    )


def responses(
    answers: Mapping[int, dict[str, Any]], *codes: str
) -> dict[int | str, dict[str, Any]]:
    """Document a route: its answers, and its problems by status."""
    common = ("unauthenticated", "user_not_allowed", "invalid_request", "internal")
    away = ("overloaded", "store_unavailable", "timed_out")
    found: dict[int | str, dict[str, Any]] = dict(answers.items())
    for code in sorted({*common, *away, *codes}, key=lambda code: (TABLE[code].status, code)):
        kind = TABLE[code]
        entry = found.setdefault(
            kind.status,
            {
                "description": "",
                "content": {
                    MEDIA_TYPE: {
                        "schema": {"$ref": f"#/components/schemas/{ProblemShape.__name__}"},
                        "examples": {},
                    }
                },
            },
        )
        entry["description"] = ", ".join(filter(None, (entry["description"], f"`{code}`")))
        entry["content"][MEDIA_TYPE]["examples"][code] = {
            "value": Problem(code).body("01928c5e-7f3c-7000-8000-000000000000")
        }
    return found


BODY_PROBLEMS: Final = (
    "malformed_json",
    "request_timeout",
    "payload_too_large",
    "unsupported_media_type",
)
RUN_PROBLEMS: Final = (
    "context_too_long",
    "engine_lost",
    "engine_unavailable",
    "log_lost",
    "model_not_allowed",
    "model_not_found",
    "poisoned",
    "queue_full",
    "rate_limited",
)
