"""How the two calls that begin a run are documented."""

from typing import Any, Final

from parley_gateway.answers import (
    BACKGROUND_EXAMPLE,
    COMPLETION_EXAMPLE,
    NEW_CHAT_EXAMPLE,
    STREAM_EXAMPLE,
    BackgroundShape,
    CompletionShape,
    NewChatShape,
)
from parley_gateway.routes.common import BODY_PROBLEMS, RUN_PROBLEMS, responses
from parley_gateway.routes.retries import REPLAYED

STREAM_DOC: Final[dict[str, Any]] = {
    "text/event-stream": {"schema": {"type": "string"}, "example": STREAM_EXAMPLE}
}
_REPLAYED: Final[dict[str, Any]] = {
    REPLAYED: {
        "description": "`true` where an earlier request with the same key began the run.",
        "schema": {"type": "string", "const": "true"},
    }
}
_BACKGROUND: Final[dict[str, Any]] = {
    "model": BackgroundShape,
    "description": "The turn is stored, and its answer is made without anybody waiting",
    "headers": _REPLAYED
    | {"Location": {"description": "`/runs/{runID}`", "schema": {"type": "string"}}},
    "content": {"application/json": {"example": BACKGROUND_EXAMPLE}},
}

NEW_CHAT_RESPONSES: Final = responses(
    {
        201: {
            "model": NewChatShape,
            "description": "The chat, and the answer to its first message",
            "headers": _REPLAYED
            | {"Location": {"description": "`/chat/{chatID}`", "schema": {"type": "string"}}},
            "content": STREAM_DOC | {"application/json": {"example": NEW_CHAT_EXAMPLE}},
        },
        202: _BACKGROUND,
    },
    *BODY_PROBLEMS,
    *RUN_PROBLEMS,
    "idempotency_key_reused",
    "not_found",
    "run_in_progress",
)
COMPLETION_RESPONSES: Final = responses(
    {
        200: {
            "model": CompletionShape,
            "description": "The answer",
            "headers": _REPLAYED,
            "content": STREAM_DOC | {"application/json": {"example": COMPLETION_EXAMPLE}},
        },
        202: _BACKGROUND,
    },
    *BODY_PROBLEMS,
    *RUN_PROBLEMS,
    "idempotency_key_reused",
    "not_found",
    "run_in_progress",
)
NEW_CHAT_BODIES: Final[dict[str, Any]] = {
    "message": {
        "summary": "A chat with its first message",
        "value": {"message": "Explain Redis in one sentence."},
    },
    "stream": {
        "summary": "The same, streamed",
        "value": {
            "userID": "ada",
            "message": "Explain Redis in one sentence.",
            "system": "You are terse.",
            "stream": True,
            "options": {"maxTokens": 64, "temperature": 0},
        },
    },
    "background": {
        "summary": "The same, without waiting for it",
        "value": {"message": "Explain Redis in one sentence.", "background": True},
    },
    "empty": {"summary": "An empty chat", "value": {"title": "For later"}},
}
COMPLETION_BODIES: Final[dict[str, Any]] = {
    "message": {"summary": "The next message", "value": {"message": "And in one word?"}}
}
