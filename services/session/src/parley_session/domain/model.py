"""The nouns of the session service, as they are stored.

All of them are immutable: a change is a write to the store, which answers with
the new state. Times are timezone-aware UTC. Text offsets are bytes of UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


class RunState(StrEnum):
    """Where a run stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the run is committed."""
        return self in (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)


class HistoryStrategy(StrEnum):
    """How much of a chat the model sees."""

    FULL = "full"
    TRUNCATE = "truncate"
    SUMMARIZE = "summarize"


class CacheMode(StrEnum):
    """What a request wants of the answer cache."""

    USE = "use"
    REFRESH = "refresh"
    BYPASS = "bypass"


class WhenBusy(StrEnum):
    """What to do with a message that meets a run in progress."""

    REJECT = "reject"
    QUEUE = "queue"


class CacheStatus(StrEnum):
    """How the cache answered."""

    MISS = "miss"
    EXACT = "exact"
    SEMANTIC = "semantic"
    BYPASS = "bypass"


class Rating(StrEnum):
    """A user's verdict on an answer."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: part of every query to the store.

    `user` is None only for a call that names nobody and acts as the owner of
    the chat or run that it names (the gateway allows that under auth "none").
    """

    tenant: str
    user: str | None


@dataclass(frozen=True, slots=True)
class Options:
    """Completion options, all resolved to values at acceptance (see api.md)."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    stop: tuple[str, ...]
    presence_penalty: float
    frequency_penalty: float
    json_schema: str
    history: HistoryStrategy
    history_turns: int | None
    cache: CacheMode
    when_busy: WhenBusy
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What is needed, beside the chat, to make an answer."""

    model: str
    options: Options
    # W3C traceparent of the call that began the run; empty: none.
    traceparent: str = ""
    # The call that began the run also made its chat.
    new_chat: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """An accepted question whose answer is not stored yet.

    The question takes `seq`, the answer `seq + 1`.
    """

    run: str
    seq: int
    message: str
    request: RunRequest
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class Summary:
    """A stored summary of a chat's messages before `until_seq`."""

    text: str
    until_seq: int
    tokens: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat. `pending` holds its accepted turns, the one being made first."""

    id: str
    tenant: str
    user: str
    title: str
    system: str
    model: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    deleted_at: datetime | None = None
    next_seq: int = 0
    message_count: int = 0
    pending: tuple[Turn, ...] = ()
    summary: Summary | None = None
    # How often the stored chat was written: what a compare-and-set compares.
    revision: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ChatListing:
    """A chat as a list shows it."""

    id: str
    title: str
    created_at: datetime
    updated_at: datetime
    message_count: int


@dataclass(frozen=True, slots=True)
class Message:
    """One stored message; its id is `message_id(chat, seq)`."""

    chat: str
    tenant: str
    user: str
    seq: int
    role: Role
    content: str
    created_at: datetime
    run: str
    # Tokens that it adds to a prompt, by tokenizer id; counted once.
    tokens: Mapping[str, int] = field(default_factory=dict)
    finish_reason: FinishReason | None = None
    # The message that a cache hit was copied from.
    source: str | None = None
    rating: Rating | None = None
    # Rated down: its cached answer must not be served.
    flagged: bool = False

    @property
    def id(self) -> str:
        """The message's id."""
        return message_id(self.chat, self.seq)


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What the cache said, as the caller is told."""

    status: CacheStatus
    reason: str = ""
    similarity: float | None = None
    age_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ContextInfo:
    """What of the chat's history the model saw."""

    strategy: HistoryStrategy
    messages_included: int
    messages_dropped: int
    summary_used: bool = False


@dataclass(frozen=True, slots=True)
class FrozenPrompt:
    """What a run's prompt is made of, fixed before its first token.

    Messages with `first_seq <= seq <= last_seq` are in it, the question last.
    """

    first_seq: int
    last_seq: int
    system: str
    summary: str
    # Unix seconds, what the chat template sees as now.
    template_time: int
    model_revision: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds since the turn's acceptance; None: it did not come to that."""

    first_token: float | None = None
    finished: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a run failed: a stable code of docs/api, and a sentence."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Run:
    """One answer being made, or made."""

    id: str
    chat: str
    tenant: str
    user: str
    # Of the question; the answer has seq + 1.
    seq: int
    state: RunState
    request: RunRequest
    created_at: datetime
    deadline: datetime
    attempt: int = 0
    holder: str = ""
    # The attempt whose holder has stopped and left the run to others; 0: none has.
    handed_over: int = 0
    # Holders that were lost while they made it.
    faults: int = 0
    # Moved by the holder every third of the lease time.
    beat: int = 0
    # The stream that holds the whole text; None: no whole log.
    log: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cancel_requested: bool = False
    prompt: FrozenPrompt | None = None
    content: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage = Usage()
    timings: Timings = Timings()
    cache: CacheInfo | None = None
    context: ContextInfo | None = None
    # The message that a cache hit was copied from.
    source: str | None = None
    error: Problem | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last state of a run: what the commit writes."""

    state: RunState
    content: str
    finish_reason: FinishReason
    finished_at: datetime
    usage: Usage
    timings: Timings
    cache: CacheInfo
    context: ContextInfo
    # The message that a cache hit was copied from.
    source: str | None = None
    error: Problem | None = None


@dataclass(frozen=True, slots=True)
class Invalidation:
    """Cached answers that must go, until the cache has confirmed it.

    Names a chat, or one message of it.
    """

    id: str
    tenant: str
    chat: str
    message: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """What a key stands for: the ids that the first request with it brought.

    `id` is the hash of tenant, user and key. `run` is empty for a chat made without a
    message. `background`: the first request did not wait for the answer.
    """

    id: str
    body_hash: str
    chat: str
    run: str
    background: bool
    expires_at: datetime


def message_id(chat: str, seq: int) -> str:
    """The id of a chat's message number `seq`."""
    return f"{chat}-{seq}"
