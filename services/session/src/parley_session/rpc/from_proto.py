"""The contract's requests, checked and in the words of the domain."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from parley.session.v1 import session_pb2 as pb

from parley_kit.errors import FieldError
from parley_kit.ids import is_uuid
from parley_session.domain import bounds, errors, options
from parley_session.domain.model import CacheMode, HistoryStrategy, Rating, WhenBusy
from parley_session.runs.asking import Completion, NewChat
from parley_session.runs.keys import RequestKey
from parley_session.store.base import ListCursor

_HISTORY = {
    pb.HISTORY_STRATEGY_FULL: HistoryStrategy.FULL,
    pb.HISTORY_STRATEGY_TRUNCATE: HistoryStrategy.TRUNCATE,
    pb.HISTORY_STRATEGY_SUMMARIZE: HistoryStrategy.SUMMARIZE,
}
_CACHE = {
    pb.CACHE_MODE_USE: CacheMode.USE,
    pb.CACHE_MODE_REFRESH: CacheMode.REFRESH,
    pb.CACHE_MODE_BYPASS: CacheMode.BYPASS,
}
_WHEN_BUSY = {
    pb.WHEN_BUSY_REJECT: WhenBusy.REJECT,
    pb.WHEN_BUSY_QUEUE: WhenBusy.QUEUE,
}
_RATINGS = {pb.RATING_UP: Rating.UP, pb.RATING_DOWN: Rating.DOWN}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def check(problems: Iterable[FieldError]) -> None:
    """Raise `invalid_request` if there are any."""
    found = list(problems)
    if found:
        raise errors.invalid(found)


def check_id(field: str, value: str) -> str:
    """Return an id that is well formed; others are nobody's, and not found."""
    if not is_uuid(value):
        raise errors.not_found(field)
    return value


def completion(request: pb.CompleteRequest) -> Completion:
    """Read a completion. Raises `invalid_request` naming all that is wrong."""
    problems = [
        *bounds.check_id("chatID", request.chat_id),
        *bounds.check_id("runID", request.run_id),
        *bounds.check_message(request.message),
    ]
    new_chat = None
    if request.HasField("new_chat"):
        new_chat, wrong = _new_chat(request.new_chat)
        problems += wrong
    problems += bounds.check_key(request.idempotency_key, request.body_digest)
    asked = _options(request.options)
    problems += options.violations(asked)
    check(problems)
    return Completion(
        chat_id=request.chat_id,
        run_id=request.run_id,
        message=request.message,
        options=options.resolve(asked),
        new_chat=new_chat,
        key=_key(request.idempotency_key, request.body_digest, background=request.background),
    )


def new_chat(source: pb.NewChat) -> NewChat:
    """Read what a chat is made of. Raises `invalid_request`."""
    chat, problems = _new_chat(source)
    check(problems)
    return chat


def creation_key(request: pb.CreateChatRequest) -> RequestKey | None:
    """Read the key of a chat made without a message. Raises `invalid_request`."""
    check(bounds.check_key(request.idempotency_key, request.body_digest))
    return _key(request.idempotency_key, request.body_digest)


def day(field: str, text: str) -> date:
    """Read a day, YYYY-MM-DD. Raises `invalid_request`."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = None
    # Python reads more forms than this one.
    if found is None or found.isoformat() != text:
        raise errors.invalid_field(field, "must be a day as YYYY-MM-DD")
    return found


def rating(source: pb.Rating.ValueType) -> Rating:
    """Read a rating. Raises `invalid_request`."""
    if source not in _RATINGS:
        raise errors.invalid_field("rating", "must be up or down")
    return _RATINGS[source]


def cursor(text: str) -> ListCursor | None:
    """Read the place where a page begins. Raises `invalid_request`."""
    if not text:
        return None
    try:
        decoded = base64.urlsafe_b64decode(text.encode("ascii")).decode("ascii")
        milliseconds, _, chat_id = decoded.partition(" ")
        updated_at = _EPOCH + timedelta(milliseconds=int(milliseconds))
    except (UnicodeError, binascii.Error, ValueError, OverflowError):
        raise errors.invalid_field("cursor", "is not one that a page gave") from None
    if not is_uuid(chat_id):
        raise errors.invalid_field("cursor", "is not one that a page gave")
    return ListCursor(updated_at, chat_id)


def cursor_text(after: ListCursor) -> str:
    """Return a cursor as callers get it."""
    milliseconds = (after.updated_at - _EPOCH) // timedelta(milliseconds=1)
    return base64.urlsafe_b64encode(f"{milliseconds} {after.chat_id}".encode()).decode()


def message_seq(chat_id: str, message_id: str) -> int | None:
    """Return the number of a chat's message; None: it is no message of that chat."""
    prefix, _, number = message_id.rpartition("-")
    if prefix != chat_id or not number.isascii() or not number.isdigit() or len(number) > 9:
        return None
    return int(number)


def _key(text: str, digest: bytes, *, background: bool = False) -> RequestKey | None:
    return RequestKey(text, digest.hex(), background) if text else None


def _new_chat(source: pb.NewChat) -> tuple[NewChat, list[FieldError]]:
    problems = bounds.check_new_chat(source.title, source.system, source.model, source.ttl_seconds)
    return NewChat(source.title, source.system, source.model, source.ttl_seconds), list(problems)


def _options(source: pb.CompletionOptions) -> options.AskedOptions:
    def given(field: str) -> bool:
        return source.HasField(field)  # type: ignore[arg-type]

    return options.AskedOptions(
        max_tokens=source.max_tokens if given("max_tokens") else None,
        temperature=source.temperature if given("temperature") else None,
        top_p=source.top_p if given("top_p") else None,
        top_k=source.top_k if given("top_k") else None,
        seed=source.seed if given("seed") else None,
        stop=tuple(source.stop),
        presence_penalty=source.presence_penalty if given("presence_penalty") else None,
        frequency_penalty=source.frequency_penalty if given("frequency_penalty") else None,
        json_schema=source.json_schema,
        history=_HISTORY.get(source.history),
        history_turns=source.history_turns if given("history_turns") else None,
        cache=_CACHE.get(source.cache),
        when_busy=_WHEN_BUSY.get(source.when_busy),
        timeout_seconds=source.timeout_seconds if given("timeout_seconds") else None,
    )
