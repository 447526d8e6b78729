"""What the cache keeps and is asked about, free of wire and store formats.

Texts are Unicode, digests are 32 bytes (SHA-256), sizes are bytes, times are
Unix seconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Scope(enum.Enum):
    """Who may be given an answer."""

    USER = "user"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class Partition:
    """All that must be equal before two questions are compared."""

    tenant: str
    scope: Scope
    user: str
    """The user under `Scope.USER`, empty under `Scope.GLOBAL`."""
    model: str
    model_revision: str
    options_digest: bytes
    system_digest: bytes


@dataclass(frozen=True, slots=True)
class Query:
    """A question with everything that its answer depends on."""

    partition: Partition
    context_fingerprint: bytes
    context_messages: int
    question: str


@dataclass(frozen=True, slots=True)
class Offer:
    """An answer offered to the cache, with what admission needs to know of it."""

    query: Query
    answer: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    source_message_id: str
    source_chat_id: str
    source_user: str
    temperature: float
    seeded: bool
    stamp: str
    """What Lookup gave before the answer was begun, or empty."""
    lease: str = ""
    """That the asker holds, or empty."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored answer."""

    entry_id: str
    check: bytes
    """A second digest of the key, by another function: see `keys.EntryKey`."""
    answer: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    source_message_id: str
    source_chat_id: str
    stored_at: float
    expires_at: float
    shared_by: str = ""
    """`keys.user_name` of whose question made it, under `Scope.GLOBAL`; else empty."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the semantic tier keeps of an entry, beside it."""

    space: str
    """`keys.space_name`: what is comparable with it."""
    question: str
    """As it was asked."""
    vector: bytes
    """Unit length, float32, little-endian."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """An entry that the index nominated, read again: whole, unexpired, of this epoch."""

    entry: Entry
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class Credit:
    """Hits of an entry that are to count for its worth. `tenant`: a `keys.tenant_name`."""

    tenant: str
    entry_id: str
    tokens: int
    hits: int


@dataclass(frozen=True, slots=True)
class Sources:
    """What an entry can be invalidated by, apart from its tenant."""

    chat_id: str
    message_id: str
    user: str
    model: str


@dataclass(frozen=True, slots=True)
class Selector:
    """Which entries of a tenant to remove: those that match every field set."""

    chat_id: str = ""
    message_id: str = ""
    user: str = ""
    model: str = ""
    all: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """Entries held, and the bytes that they are reckoned to take."""

    entries: int
    bytes: int
