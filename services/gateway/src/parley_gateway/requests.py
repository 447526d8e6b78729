"""What callers send: strict models, unknown fields refused, every field bounded."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from parley_gateway import bounds
from parley_gateway.bounds import NotNull


class Strict(BaseModel):
    """No unknown fields, no coercion, no infinities."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )


def _response_format(value: Any) -> str:
    """Return the JSON schema as text, empty for free text."""
    if value == "text":
        return ""
    if not isinstance(value, dict):
        raise PydanticCustomError("response_format", 'is neither "text" nor a JSON schema')
    _bound_schema(value)
    try:
        encoded = orjson.dumps(value)
    except (TypeError, ValueError):
        raise PydanticCustomError("schema", "cannot be encoded as JSON") from None
    if len(encoded) > bounds.MAX_SCHEMA_BYTES:
        raise PydanticCustomError(
            "schema_too_long",
            "is longer than {limit} bytes",
            {"limit": bounds.MAX_SCHEMA_BYTES},
        )
    return encoded.decode()


def _bound_schema(root: dict[str, Any]) -> None:
    """Refuse a schema that is too deep, too big, or holds text that cannot be stored."""
    waiting: list[tuple[Any, int]] = [(root, 1)]
    # Every value takes a byte at least, so this many cannot fit the bound below.
    budget = bounds.MAX_SCHEMA_BYTES
    while waiting:
        value, depth = waiting.pop()
        budget -= 1
        if depth > bounds.MAX_SCHEMA_DEPTH or budget < 0:
            raise PydanticCustomError("schema_too_deep", "is too large or nested too deeply")
        if isinstance(value, str):
            bounds.refuse_unstorable(value)
        elif isinstance(value, dict):
            for key, item in value.items():
                bounds.refuse_unstorable(key)
                waiting.append((item, depth + 1))
        elif isinstance(value, list):
            waiting.extend((item, depth + 1) for item in value)


class Options(Strict):
    """How the answer is made. What is left out is resolved when the turn is accepted."""

    max_tokens: Annotated[
        int | None,
        Field(ge=1, le=bounds.MAX_TOKENS, description="Most tokens of the answer; 512."),
        NotNull(),
    ] = Field(default=None, alias="maxTokens")
    temperature: Annotated[
        float | None, Field(ge=0, le=2, description="0 (greedy) to 2; 0.7."), NotNull()
    ] = None
    top_p: Annotated[float | None, Field(gt=0, le=1), NotNull()] = Field(default=None, alias="topP")
    top_k: Annotated[
        int | None, Field(ge=0, le=bounds.MAX_TOP_K, description="0: off."), NotNull()
    ] = Field(default=None, alias="topK")
    seed: Annotated[int | None, Field(ge=0, le=bounds.MAX_SEED), NotNull()] = None
    stop: Annotated[
        list[bounds.Stop] | None,
        Field(max_length=bounds.MAX_STOPS, description="The answer ends before one of these."),
        NotNull(),
    ] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2), NotNull()] = Field(
        default=None, alias="presencePenalty"
    )
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2), NotNull()] = Field(
        default=None, alias="frequencyPenalty"
    )
    response_format: Annotated[
        str | None,
        BeforeValidator(_response_format),
        WithJsonSchema(
            {
                "anyOf": [{"const": "text", "type": "string"}, {"type": "object"}],
                "description": "`text`, or a JSON schema (at most 16 KiB, 32 levels) that the "
                "answer follows.",
            }
        ),
    ] = Field(default=None, alias="responseFormat")
    history: Annotated[
        Literal["full", "truncate", "summarize"] | None,
        Field(description="What of the earlier turns the model sees; `truncate`."),
        NotNull(),
    ] = None
    history_turns: Annotated[
        int | None,
        Field(ge=0, le=bounds.MAX_HISTORY_TURNS, description="At most so many earlier turns."),
        NotNull(),
    ] = Field(default=None, alias="historyTurns")
    cache: Annotated[Literal["use", "refresh", "bypass"] | None, NotNull()] = None
    when_busy: Annotated[
        Literal["reject", "queue"] | None,
        Field(description="A message that meets a run in progress: refused, or up to 8 wait."),
        NotNull(),
    ] = Field(default=None, alias="whenBusy")
    timeout_seconds: Annotated[
        float | None,
        Field(
            ge=1,
            le=bounds.MAX_TIMEOUT_SECONDS,
            description="The answer ends with what there is after so long.",
        ),
        NotNull(),
    ] = Field(default=None, alias="timeoutSeconds")


_Stream = Annotated[
    bool | None,
    Field(description="Answer with server-sent events. Left out, the Accept header decides."),
    NotNull(),
]
_Background = Annotated[
    bool | None,
    Field(description="Answer at once with where the run is; not together with `stream`."),
    NotNull(),
]


def _refuse_both(stream: bool | None, background: bool | None) -> None:
    if stream and background:
        raise PydanticCustomError(
            "stream_in_background", "stream and background exclude each other"
        )


class CompletionRequest(Strict):
    """A message in an existing chat."""

    message: bounds.MessageText
    user_id: Annotated[bounds.UserID | None, NotNull()] = Field(default=None, alias="userID")
    stream: _Stream = None
    background: _Background = None
    options: Annotated[Options | None, NotNull()] = None

    @model_validator(mode="after")
    def _is_delivered_in_one_way(self) -> "CompletionRequest":
        _refuse_both(self.stream, self.background)
        return self


class NewChatRequest(Strict):
    """A new chat, with a first message or empty."""

    model_config = ConfigDict(
        json_schema_extra={"dependentRequired": {"options": ["message"]}},
    )

    user_id: Annotated[bounds.UserID | None, NotNull()] = Field(default=None, alias="userID")
    message: Annotated[bounds.MessageText | None, NotNull()] = None
    system: Annotated[bounds.SystemText | None, NotNull()] = None
    model: Annotated[bounds.ModelID | None, NotNull()] = None
    title: Annotated[bounds.Title | None, NotNull()] = None
    ttl_seconds: Annotated[
        int | None,
        Field(
            ge=1,
            le=bounds.MAX_TTL_SECONDS,
            description="The chat is deleted so long after its last change; kept if left out.",
        ),
        NotNull(),
    ] = Field(default=None, alias="ttlSeconds")
    stream: _Stream = None
    background: _Background = None
    options: Annotated[Options | None, NotNull()] = None

    @model_validator(mode="after")
    def _needs_a_message(self) -> "NewChatRequest":
        waited_for = self.stream or self.background or self.options is not None
        if self.message is None and waited_for:
            raise PydanticCustomError(
                "message_missing", "stream, background and options need a message to answer"
            )
        _refuse_both(self.stream, self.background)
        return self


class ChatPatch(Strict):
    """What of a chat can be changed."""

    title: bounds.Title


class Feedback(Strict):
    """A rating of an answer."""

    rating: Literal["up", "down"]
