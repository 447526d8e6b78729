"""Idempotency keys and invalidations of a `MemoryStore`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from parley_session.domain.model import (
    IdempotencyRecord,
    Invalidation,
)
from parley_session.store.documents import records as documents
from parley_session.store.documents.fields import stored_time
from parley_session.store.memory.part import Part


class MemoryRecords(Part):
    """What requests and deletions leave to be looked up, or done, later."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[str, IdempotencyRecord] = {}
        self._invalidations: dict[str, Invalidation] = {}

    async def insert_key(self, record: IdempotencyRecord) -> bool:
        """See `Store.insert_key`."""
        self._reach()
        if record.id in self._keys:
            return False
        self._keys[record.id] = documents.key_from(documents.key_to(record))
        return True

    async def get_key(self, key_id: str) -> IdempotencyRecord | None:
        """See `Store.get_key`."""
        self._reach()
        return self._keys.get(key_id)

    async def replace_key(self, expired: IdempotencyRecord, record: IdempotencyRecord) -> bool:
        """See `Store.replace_key`."""
        self._reach()
        kept = self._keys.get(expired.id)
        if kept is None or (kept.chat, kept.run) != (expired.chat, expired.run):
            return False
        self._keys[expired.id] = documents.key_from(documents.key_to(record))
        return True

    async def delete_expired_keys(self, before: datetime, limit: int) -> int:
        """See `Store.delete_expired_keys`."""
        self._reach()
        past = stored_time(before)
        found = [record.id for record in self._keys.values() if record.expires_at < past][:limit]
        for key_id in found:
            del self._keys[key_id]
        return len(found)

    async def insert_invalidation(self, invalidation: Invalidation) -> bool:
        """See `Store.insert_invalidation`."""
        self._reach()
        if invalidation.id in self._invalidations:
            return False
        document = documents.invalidation_to(invalidation)
        self._invalidations[invalidation.id] = documents.invalidation_from(document)
        return True

    async def list_invalidations(self, limit: int) -> Sequence[Invalidation]:
        """See `Store.list_invalidations`."""
        self._reach()
        return sorted(self._invalidations.values(), key=lambda i: (i.created_at, i.id))[:limit]

    async def confirm_invalidation(self, invalidation_id: str) -> None:
        """See `Store.confirm_invalidation`."""
        self._reach()
        self._invalidations.pop(invalidation_id, None)
