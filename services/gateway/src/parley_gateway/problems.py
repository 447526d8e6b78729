"""Every code a caller can meet, and the one exception that carries one (RFC 9457).

``TABLE`` is the whole list: the answer's status, the documentation and the
OpenAPI document are read from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import orjson

from parley_kit.errors import FieldError, ServiceError

MEDIA_TYPE: Final = "application/problem+json"
# Bounds of what is said about one bad request.
MAX_ERRORS: Final = 20
MAX_FIELD_CHARACTERS: Final = 100
MAX_SENTENCE_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class Code:
    """A stable code: its HTTP status, a title, why it happens and what to do."""

    status: int
    title: str
    cause: str
    cure: str
    # Seconds for Retry-After where the service behind gave none.
    retry_after: int | None = None


TABLE: Final[dict[str, Code]] = {
    "malformed_request": Code(
        400,
        "Not an HTTP request",
        "The bytes on the connection are not a valid HTTP/1.1 request.",
        "Use an HTTP library; check proxies in between.",
    ),
    "malformed_json": Code(
        400,
        "The body is not JSON",
        "The body is empty, not UTF-8, not JSON, nested too deeply, or names a field twice.",
        "Send one JSON object, each field once; NaN and Infinity are not JSON.",
    ),
    "unauthenticated": Code(
        401,
        "No valid credential",
        "The Authorization header is missing, malformed, or names a key that does not exist.",
        "Send `Authorization: Bearer <key>` with a key that has not been revoked.",
    ),
    "user_not_allowed": Code(
        403,
        "Another user than the key's",
        "The key is fixed to one user, and the request names another.",
        "Leave userID out, or use that user's key.",
    ),
    "model_not_allowed": Code(
        403,
        "The model is not for your tenant",
        "Only engines outside the operator's own fleet serve the model, and what your tenant asks "
        "must not leave it.",
        "Choose one that `GET /models` lists.",
    ),
    "not_found": Code(
        404,
        "Not found",
        "There is no such route, chat, message or run, or it belongs to somebody else.",
        "Check the path and the id, and as whom you ask.",
    ),
    "method_not_allowed": Code(
        405,
        "Method not allowed",
        "The path exists, but not with this method.",
        "Use a method that the Allow header names.",
    ),
    "request_timeout": Code(
        408,
        "The request took too long to arrive",
        "The head or the body of the request was not complete within its time.",
        "Send it again over a better connection; the connection is closed.",
    ),
    "run_in_progress": Code(
        409,
        "An answer is being made in this chat",
        "One answer is made at a time in a chat; `runID` names the one in progress.",
        "Wait for that run to end, or cancel it, and send the message again.",
        retry_after=1,
    ),
    "payload_too_large": Code(
        413,
        "The body is too large",
        "The body is larger than the gateway accepts.",
        "Send less.",
    ),
    "unsupported_media_type": Code(
        415,
        "The body's type is not supported",
        "The Content-Type is not application/json in UTF-8, or the body is compressed.",
        "Send `Content-Type: application/json` and no Content-Encoding.",
    ),
    "invalid_request": Code(
        422,
        "The request is not valid",
        "A field, parameter or header is unknown, missing, of the wrong type or out of bounds; "
        "`errors` names each.",
        "Correct what `errors` names.",
    ),
    "idempotency_key_reused": Code(
        422,
        "The idempotency key belongs to another request",
        "The key was used within the last day with another method, path or body.",
        "Use a new key for a new request.",
    ),
    "model_not_found": Code(
        422,
        "No such model",
        "No engine serves the model that the chat names.",
        "Choose one that `GET /models` lists.",
    ),
    "context_too_long": Code(
        422,
        "The conversation does not fit the model",
        "Prompt and answer together are longer than the model's context.",
        "Send less, lower maxTokens, or use `history: truncate` or historyTurns.",
    ),
    "bad_event_id": Code(
        422,
        "No such place in the stream",
        "Last-Event-ID is inside a character or beyond the end of the answer.",
        "Send the id of an event that you received.",
    ),
    "rate_limited": Code(
        429,
        "Too many requests",
        "Your share of requests or tokens is used up.",
        "Wait for as long as Retry-After says.",
        retry_after=1,
    ),
    "queue_full": Code(
        429,
        "Too many messages are waiting",
        "The chat's or your own queue is full.",
        "Wait for an answer before sending the next message.",
        retry_after=1,
    ),
    "headers_too_large": Code(
        431,
        "The head of the request is too large",
        "The request line and headers are larger, or the headers more, than the gateway accepts.",
        "Send fewer or shorter headers, and a shorter path and query.",
    ),
    "internal": Code(
        500,
        "A defect in Parley",
        "Something happened that must not happen.",
        "Report it with the requestID.",
    ),
    "engine_lost": Code(
        502,
        "The engine died in the middle of the answer",
        "The engine that made the answer died, and the answer could not be continued.",
        "Read the chat for what was kept of it, and ask again.",
    ),
    "log_lost": Code(
        502,
        "The answer's log was lost",
        "The process that made the answer died while its log was away.",
        "Ask again.",
    ),
    "poisoned": Code(
        502,
        "The run failed too often",
        "Making this answer failed three times by its own fault.",
        "Change the message or the options before asking again.",
    ),
    "overloaded": Code(
        503,
        "No room at the moment",
        "Too many answers are being made or too many streams are open, or no session replica "
        "is ready.",
        "Try again after Retry-After.",
        retry_after=1,
    ),
    "engine_unavailable": Code(
        503,
        "No engine is ready",
        "No engine that serves the model is up.",
        "Try again after Retry-After.",
        retry_after=2,
    ),
    "store_unavailable": Code(
        503,
        "The store is away",
        "The database cannot be reached.",
        "Try again after Retry-After.",
        retry_after=2,
    ),
    "timed_out": Code(
        504,
        "Not finished in time",
        "The answer was not complete within timeoutSeconds, or a service within did not answer.",
        "Read the run for what there is of it; raise timeoutSeconds or lower maxTokens.",
    ),
}

# Statuses that come without a code of ours: the transport's own, or a foreign server's.
_CODE_BY_STATUS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid_request",
    grpc.StatusCode.NOT_FOUND: "not_found",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "overloaded",
    grpc.StatusCode.UNAVAILABLE: "overloaded",
    grpc.StatusCode.DEADLINE_EXCEEDED: "timed_out",
}
# What an inner service's metadata may add to a problem.
_MEMBER_BY_METADATA: Final = {"run_id": "runID", "chat_id": "chatID"}


class Problem(Exception):
    """An answer that is an error: a code of ``TABLE``, a sentence, and the bad fields."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        fields: Sequence[FieldError] = (),
        headers: dict[str, str] | None = None,
        members: dict[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.kind = TABLE[code]
        self.detail = detail or self.kind.cause
        self.fields = tuple(fields)
        self.members = members or {}
        self.headers = dict(headers or {})
        if retry_after is None:
            retry_after = self.kind.retry_after
        if retry_after is not None:
            # Whole seconds, never 0: "at once" would invite a storm.
            self.headers["Retry-After"] = str(max(1, int(-(-retry_after // 1))))

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.kind.status

    def body(self, request_id: str) -> dict[str, Any]:
        """The problem object, bounded and safe to encode."""
        found: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": clean(self.detail, MAX_SENTENCE_CHARACTERS),
            "code": self.code,
            "requestID": request_id,
        }
        if self.fields:
            found["errors"] = [
                {
                    "field": clean(item.field, MAX_FIELD_CHARACTERS),
                    "message": clean(item.message, MAX_SENTENCE_CHARACTERS),
                }
                for item in self.fields[:MAX_ERRORS]
            ]
        found.update(self.members)
        return found

    def encoded(self, request_id: str) -> bytes:
        """The problem object as JSON."""
        return orjson.dumps(self.body(request_id))


def bad_field(field: str, message: str) -> Problem:
    """Return the problem for one bad field, parameter or header."""
    return Problem("invalid_request", fields=[FieldError(field, message)])


def clean(text: str, limit: int) -> str:
    """Return text that is short and encodable, whatever a caller put into it."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")


def from_service_error(error: ServiceError) -> Problem:
    """Translate what session says; a code that is not in ``TABLE`` becomes one by its status."""
    code = error.code
    detail = error.detail
    if code not in TABLE:
        code = _CODE_BY_STATUS.get(error.status, "internal")
        # The transport's own words name addresses within: not for callers.
        detail = ""
    if code == "internal":
        detail = ""
    members = {
        name: clean(error.metadata[key], MAX_FIELD_CHARACTERS)
        for key, name in _MEMBER_BY_METADATA.items()
        if key in error.metadata
    }
    return Problem(
        code, detail, fields=error.fields, members=members, retry_after=error.retry_after
    )


def from_run_failure(code: str, detail: str, *, run_id: str, chat_id: str) -> Problem:
    """Return the problem that ends a run which was accepted and then failed."""
    if code not in TABLE:
        code, detail = "internal", ""
    return Problem(code, detail, members={"runID": run_id, "chatID": chat_id})
