"""Questions, entries and a clock for tests of the cache's store."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import time
from typing import Protocol

from parley_cache.barriers import Stamp
from parley_cache.keys import EntryKey, entry_key, tenant_name
from parley_cache.model import (
    Entry,
    Partition,
    Query,
    Scope,
    Sources,
)
from parley_cache.store.base import (
    BarrierLives,
    CacheStore,
    Limits,
    Put,
)

LIVES = BarrierLives(tombstone_seconds=1000.0, barrier_seconds=100.0)
TENANT = tenant_name("acme")
NOBODY = Stamp(None, 0)


class Clock:
    """Unix seconds that a test moves; they begin at the real time, as Redis' do."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class MakeStore(Protocol):
    """Makes a store that shares its data with those made before in the same test."""

    def __call__(self, limits: Limits | None = None) -> CacheStore: ...


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def query(question: str = "What is a heron?", **changes: object) -> Query:
    partition = Partition(
        tenant="acme",
        scope=Scope.USER,
        user="ann",
        model="smol",
        model_revision="r1",
        options_digest=digest("options"),
        system_digest=digest("system"),
    )
    partition_changes = {k: v for k, v in changes.items() if hasattr(partition, k)}
    rest = {k: v for k, v in changes.items() if k not in partition_changes}
    base = Query(
        partition=dataclasses.replace(partition, **partition_changes),  # type: ignore[arg-type]
        context_fingerprint=digest("context"),
        context_messages=0,
        question=question,
    )
    return dataclasses.replace(base, **rest)  # type: ignore[arg-type]


_serial = itertools.count()


def entry_for(
    clock: Clock,
    asked: Query,
    answer: str = "A wading bird.",
    *,
    chat: str = "chat-1",
    message: str | None = None,
    user: str | None = None,
    ttl: float = 100.0,
    tokens: int = 4,
) -> tuple[EntryKey, Entry, Sources]:
    key = entry_key(asked)
    message = message or f"{chat}-{next(_serial)}"
    entry = Entry(
        entry_id=key.entry_id,
        check=key.check,
        answer=answer,
        finish_reason="stop",
        prompt_tokens=7,
        completion_tokens=tokens,
        source_message_id=message,
        source_chat_id=chat,
        stored_at=clock(),
        expires_at=clock() + ttl,
    )
    sources = Sources(chat, message, user or asked.partition.user, asked.partition.model)
    return key, entry, sources


async def put(
    store: CacheStore,
    clock: Clock,
    asked: Query,
    answer: str = "A wading bird.",
    *,
    stamp: Stamp | None = NOBODY,
    **sources: object,
) -> Put:
    key, entry, named = entry_for(clock, asked, answer, **sources)  # type: ignore[arg-type]
    return await store.put(key, entry, named, stamp)


async def answer_of(store: CacheStore, asked: Query) -> str | None:
    found = await store.get(entry_key(asked))
    return found.entry.answer if found.entry else None
