"""What users have used: the ledger's records, and sums of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """What one run, or one chat made without a message, adds to its user's day.

    `id` is that of the run or the chat: a record is inserted once, however often its
    run is finished. It names nothing else of them and outlives both.
    """

    id: str
    tenant: str
    user: str
    day: date
    model: str = ""
    chats: int = 0
    runs: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_answers: int = 0


@dataclass(frozen=True, slots=True)
class UsageDay:
    """The sums of a user's records of one day (UTC)."""

    day: date
    chats: int
    runs: int
    prompt_tokens: int
    completion_tokens: int
    cached_answers: int


@dataclass(frozen=True, slots=True, order=True)
class UserDay:
    """Whose usage, and of which day (UTC)."""

    day: date
    tenant: str
    user: str


@dataclass(frozen=True, slots=True, order=True)
class ReportRow:
    """A row of the usage report: the sums of a user's records of one day and model."""

    day: date
    tenant: str
    user: str
    model: str
    chats: int
    runs: int
    prompt_tokens: int
    completion_tokens: int
    cached_answers: int
