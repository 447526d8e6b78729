"""The shapes of answers, as the OpenAPI document shows them.

Answers are built from session's messages by ``translate``; a test holds the two
against each other.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from parley_gateway.bounds import NotNull

CHAT_ID = "01928c5e-7f3a-7c11-9d53-0a4be1f0c2aa"
RUN_ID = "01928c5e-7f3b-7d02-8a10-5b6c7d8e9f00"
_TIME = "2026-03-01T09:30:00.000Z"

ChatID = Annotated[str, Field(examples=[CHAT_ID])]
RunID = Annotated[str, Field(examples=[RUN_ID])]
MessageID = Annotated[str, Field(examples=[f"{CHAT_ID}-1"])]
Time = Annotated[str, Field(examples=[_TIME], json_schema_extra={"format": "date-time"})]
FinishReason = Literal["stop", "length", "cancelled", "error"]
RunState = Literal["queued", "running", "completed", "failed", "cancelled"]


class Shape(BaseModel):
    """Part of an answer. Clients ignore fields they do not know: more may come."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())


class MessageShape(Shape):
    """A message of a chat."""

    messageID: MessageID
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(examples=["Redis is an in-memory data store."])]
    createdAt: Time
    finishReason: Annotated[FinishReason | None, NotNull()] = None
    runID: Annotated[RunID | None, NotNull()] = None


class UsageShape(Shape):
    """Tokens, as the engine counted them."""

    promptTokens: Annotated[int, Field(examples=[31])]
    completionTokens: Annotated[int, Field(examples=[9])]
    cachedPromptTokens: Annotated[int, Field(examples=[16])]


class CacheShape(Shape):
    """What the answer cache said."""

    status: Literal["miss", "exact", "semantic", "bypass"]
    reason: Annotated[str | None, NotNull()] = None
    similarity: Annotated[float | None, NotNull()] = None
    ageSeconds: Annotated[float | None, NotNull()] = None


class ContextShape(Shape):
    """What of the history the model saw."""

    strategy: Literal["full", "truncate", "summarize"]
    messagesIncluded: int
    messagesDropped: int
    summaryUsed: bool


class CompletionShape(Shape):
    """The answer to a message."""

    chatID: ChatID
    runID: RunID
    message: MessageShape
    usage: UsageShape
    cache: CacheShape
    context: ContextShape


class NewChatShape(Shape):
    """A new chat; without a first message, what is about a run is absent."""

    chatID: ChatID
    title: Annotated[str, Field(examples=["Explain Redis"])]
    createdAt: Time
    expiresAt: Annotated[Time | None, NotNull()] = None
    runID: Annotated[RunID | None, NotNull()] = None
    message: Annotated[MessageShape | None, NotNull()] = None
    usage: Annotated[UsageShape | None, NotNull()] = None
    cache: Annotated[CacheShape | None, NotNull()] = None
    context: Annotated[ContextShape | None, NotNull()] = None


class ChatRowShape(Shape):
    """A chat in a list."""

    chatID: ChatID
    title: str
    createdAt: Time
    updatedAt: Time
    messageCount: int


class ChatListShape(Shape):
    """A page of the caller's chats, latest update first."""

    chats: list[ChatRowShape]
    nextCursor: Annotated[str | None, NotNull()] = None


class ChatShape(ChatRowShape):
    """A chat without its messages."""

    model: str
    system: Annotated[str | None, NotNull()] = None
    expiresAt: Annotated[Time | None, NotNull()] = None
    activeRun: Annotated[RunID | None, NotNull()] = None


class ChatPageShape(ChatShape):
    """A chat and a page of its messages, oldest first."""

    messages: list[MessageShape]
    hasMore: bool


class FieldErrorShape(Shape):
    """What is wrong with one field."""

    field: str
    message: str


class ProblemShape(Shape):
    """An error (RFC 9457). `code` is stable; see docs/api/errors.md."""

    type: Annotated[str, Field(examples=["/problems/invalid_request"])]
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(examples=["invalid_request"])]
    requestID: str
    errors: Annotated[list[FieldErrorShape] | None, NotNull()] = None
    runID: Annotated[RunID | None, NotNull()] = None
    chatID: Annotated[ChatID | None, NotNull()] = None


class RunShape(Shape):
    """One answer being made, or made."""

    runID: RunID
    chatID: ChatID
    state: RunState
    createdAt: Time
    startedAt: Annotated[Time | None, NotNull()] = None
    finishedAt: Annotated[Time | None, NotNull()] = None
    message: Annotated[MessageShape | None, NotNull()] = None
    usage: Annotated[UsageShape | None, NotNull()] = None
    error: Annotated[ProblemShape | None, NotNull()] = None


class BackgroundShape(Shape):
    """Where a run is whose answer nobody waits for."""

    chatID: ChatID
    runID: RunID
    state: RunState


class UsageDayShape(Shape):
    """A day's use. A chat counts on the day it was begun, a run on the day it ended."""

    day: Annotated[str, Field(examples=["2026-03-01"], json_schema_extra={"format": "date"})]
    chats: int
    runs: int
    promptTokens: Annotated[int, Field(description="The sum of what the answers' usage said.")]
    completionTokens: int
    cachedAnswers: Annotated[int, Field(description="Of the runs, those the cache answered.")]


class UsageReportShape(Shape):
    """What a user has used, by day; what was deleted since still counts."""

    days: list[UsageDayShape]


class ModelShape(Shape):
    """A model that the fleet serves, or an adapter of one (`baseModelID`)."""

    modelID: Annotated[str, Field(examples=["SmolLM2-135M-Instruct"])]
    contextLength: int
    engine: Annotated[str, Field(examples=["vllm"])]
    revision: str
    adapters: list[str]
    baseModelID: Annotated[str | None, NotNull()] = None


class ModelListShape(Shape):
    """The models that the fleet serves now."""

    models: list[ModelShape]


_MESSAGE = {
    "messageID": f"{CHAT_ID}-1",
    "role": "assistant",
    "content": "Redis is an in-memory data store.",
    "createdAt": _TIME,
    "finishReason": "stop",
    "runID": RUN_ID,
}
COMPLETION_EXAMPLE: dict[str, Any] = {
    "chatID": CHAT_ID,
    "runID": RUN_ID,
    "message": _MESSAGE,
    "usage": {"promptTokens": 31, "completionTokens": 9, "cachedPromptTokens": 16},
    "cache": {"status": "miss"},
    "context": {
        "strategy": "truncate",
        "messagesIncluded": 1,
        "messagesDropped": 0,
        "summaryUsed": False,
    },
}
NEW_CHAT_EXAMPLE: dict[str, Any] = {
    "chatID": CHAT_ID,
    "title": "Explain Redis",
    "createdAt": _TIME,
} | COMPLETION_EXAMPLE
BACKGROUND_EXAMPLE: dict[str, Any] = {"chatID": CHAT_ID, "runID": RUN_ID, "state": "queued"}
STREAM_EXAMPLE = (
    f'event: run\nid: 0\ndata: {{"runID":"{RUN_ID}","chatID":"{CHAT_ID}",'
    f'"messageID":"{CHAT_ID}-1"}}\n\n'
    'event: delta\nid: 5\ndata: {"text":"Redis"}\n\n'
    'event: delta\nid: 33\ndata: {"text":" is an in-memory data store."}\n\n'
    f'event: done\nid: end\ndata: {{"chatID":"{CHAT_ID}",…}}\n\n'
)
