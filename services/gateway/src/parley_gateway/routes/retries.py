"""`Idempotency-Key`: the header, the digest of what it stands for, and what a replay says.

The digest covers method, path and the validated body, without what only says how the
answer is delivered (`stream`, `background`) and without `userID`: a key belongs to the
user that the call was made as, wherever that user was named.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Final

import orjson
from fastapi import Header, Request
from parley.session.v1 import session_pb2 as pb
from pydantic import BaseModel

from parley_gateway.bounds import NotNull
from parley_gateway.problems import bad_field

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
MAX_KEY_CHARACTERS: Final = 255

KeyHeader = Annotated[
    str | None,
    NotNull(),
    Header(
        alias=HEADER,
        min_length=1,
        max_length=MAX_KEY_CHARACTERS,
        pattern=r"^[\x21-\x7e]+$",
        description="Makes the request safe to send again: for a day, the same request under "
        "the same key attaches to the running answer or replays the stored one.",
    ),
]
_DELIVERY: Final = {"stream", "background", "user_id"}


@dataclass(frozen=True, slots=True)
class Key:
    """A request's key and digest; an empty ``text`` is none."""

    text: str = ""
    digest: bytes = b""


def key_of(request: Request, text: str | None, body: BaseModel) -> Key:
    """Return the key of a validated request. Raises ``invalid_request`` for two of them."""
    if text is None:
        return Key()
    if len(request.headers.getlist(HEADER)) > 1:
        raise bad_field(HEADER, "given more than once")
    return Key(text, digest_of(request.method, request.scope["path"], body))


def digest_of(method: str, path: str, body: BaseModel) -> bytes:
    """Return the SHA-256 of a request as canonical JSON: sorted, without what was left out."""
    said = body.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=_DELIVERY)
    canonical = orjson.dumps(
        {"method": method, "path": path, "body": said}, option=orjson.OPT_SORT_KEYS
    )
    return hashlib.sha256(canonical).digest()


@dataclass(frozen=True, slots=True)
class Told:
    """The status and headers of an accepted answer."""

    status: int
    headers: dict[str, str]
    replayed: bool


def told_of(accepted: pb.RunAccepted, asked: pb.CompleteRequest) -> Told:
    """Return what is told of an accepted request; of a replay what the first call was told."""
    replayed = accepted.replayed
    background = accepted.background if replayed else asked.background
    headers = {REPLAYED: "true"} if replayed else {}
    if background:
        return Told(202, headers | {"Location": f"/runs/{accepted.run_id}"}, replayed)
    if asked.HasField("new_chat"):
        return Told(201, headers | {"Location": f"/chat/{accepted.chat_id}"}, replayed)
    return Told(200, headers, replayed)
