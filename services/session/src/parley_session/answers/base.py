"""The contract of the answer cache, as the session service sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from parley_session.domain.model import CacheStatus, FinishReason, Invalidation


@dataclass(frozen=True, slots=True)
class Query:
    """A question, and all that must be equal before two questions are compared."""

    tenant: str
    user: str
    model: str
    model_revision: str
    # SHA-256 digests, 32 bytes each.
    options_digest: bytes
    system_digest: bytes
    context_fingerprint: bytes
    # Messages sent before the last one, the system prompt apart.
    context_messages: int
    question: str
    # Of the decoding: an answer that will not be kept is not waited for either.
    temperature: float = 0.0
    seeded: bool = False
    # Other users of the tenant may be given the answer, and theirs may be given.
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored answer. It is served only while its source stands."""

    status: CacheStatus
    answer: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    source_message: str
    source_chat: str
    age_seconds: float
    similarity: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Miss:
    """There is no answer to be had; why, as a stable snake_case word."""

    reason: str
    # Opaque; goes with the answer that this miss leads to.
    stamp: str = ""
    # Others wait for this answer: it goes with the answer, or is released.
    lease: str = ""
    # For how long it stands unless it is renewed; 0: it needs no renewing.
    lease_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is offered to the cache."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    source_message: str
    source_chat: str
    source_user: str
    temperature: float
    seeded: bool
    # That of the miss which led to the answer; empty: the cache was not asked.
    stamp: str = ""
    lease: str = ""


def nobody_told() -> None:
    """Do nothing."""


class AnswerCache(Protocol):
    """Answers by question. A cache that is slow or away is a miss, never an error."""

    async def lookup(self, query: Query, waits: Callable[[], None] = nobody_told) -> Hit | Miss:
        """Look a question up, within the cache's own small deadline.

        Where another is making the same answer, or one to a question that means the same,
        it is waited for, a bounded time; `waits` is called before that.
        """

    async def store(self, query: Query, answer: Answer) -> str:
        """Offer an answer; empty if it was taken, else why not (a snake_case word)."""

    async def renew(self, query: Query, lease: str, seconds: float) -> float:
        """Let a lease stand; give for how many seconds, 0: it has ended. Never fails.

        `seconds` is given back where the cache does not answer.
        """

    async def release(self, query: Query, lease: str) -> None:
        """Give a miss's lease back: there will be no answer. Never fails."""

    async def invalidate(self, invalidation: Invalidation) -> bool:
        """Remove what an invalidation names. False: not confirmed, ask again."""


class NoCache:
    """No cache: every question is a miss."""

    async def lookup(self, query: Query, waits: Callable[[], None] = nobody_told) -> Hit | Miss:  # noqa: ARG002
        """Miss."""
        return Miss("disabled")

    async def store(self, query: Query, answer: Answer) -> str:  # noqa: ARG002
        """Refuse."""
        return "disabled"

    async def renew(self, query: Query, lease: str, seconds: float) -> float:  # noqa: ARG002
        """Nothing is held."""
        return 0.0

    async def release(self, query: Query, lease: str) -> None:
        """Nothing is held."""

    async def invalidate(self, invalidation: Invalidation) -> bool:  # noqa: ARG002
        """Confirm: nothing is kept."""
        return True
