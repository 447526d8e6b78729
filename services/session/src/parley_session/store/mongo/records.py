"""Idempotency keys and invalidations of the `Store` on MongoDB."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pymongo import ASCENDING

from parley_session.domain.model import (
    IdempotencyRecord,
    Invalidation,
)
from parley_session.store.documents import records as documents
from parley_session.store.documents.fields import stored_time
from parley_session.store.mongo.queries import Collections, insert
from parley_session.store.mongo.seam import operation


class MongoRecords(Collections):
    """What requests and deletions leave to be looked up, or done, later."""

    @operation
    async def insert_key(self, record: IdempotencyRecord) -> bool:
        """See `Store.insert_key`."""
        return await insert(self._keys, documents.key_to(record))

    @operation
    async def get_key(self, key_id: str) -> IdempotencyRecord | None:
        """See `Store.get_key`."""
        document = await self._keys.find_one({"_id": key_id}, documents.KEY_FIELDS)
        return None if document is None else documents.key_from(document)

    @operation
    async def replace_key(self, expired: IdempotencyRecord, record: IdempotencyRecord) -> bool:
        """See `Store.replace_key`."""
        fields = documents.key_to(record)
        del fields["_id"]
        # Its ids tell a record from every other one that the key has had.
        result = await self._keys.update_one(
            {"_id": expired.id, "chat": expired.chat, "run": expired.run}, {"$set": fields}
        )
        return result.matched_count == 1

    @operation
    async def delete_expired_keys(self, before: datetime, limit: int) -> int:
        """See `Store.delete_expired_keys`."""
        past = {"$lt": stored_time(before)}
        rows = self._keys.find({"expiresAt": past}, {"_id": 1}, limit=limit, batch_size=limit + 1)
        found = [row["_id"] for row in await rows.to_list(limit)]
        if not found:
            return 0
        # Unless it was replaced meanwhile.
        gone = await self._keys.delete_many({"_id": {"$in": found}, "expiresAt": past})
        return gone.deleted_count

    @operation
    async def insert_invalidation(self, invalidation: Invalidation) -> bool:
        """See `Store.insert_invalidation`."""
        return await insert(self._invalidations, documents.invalidation_to(invalidation))

    @operation
    async def list_invalidations(self, limit: int) -> Sequence[Invalidation]:
        """See `Store.list_invalidations`."""
        found = self._invalidations.find(
            {},
            documents.INVALIDATION_FIELDS,
            sort=[("createdAt", ASCENDING)],
            limit=limit,
            batch_size=limit + 1,
        )
        return [documents.invalidation_from(document) for document in await found.to_list(limit)]

    @operation
    async def confirm_invalidation(self, invalidation_id: str) -> None:
        """See `Store.confirm_invalidation`."""
        await self._invalidations.delete_one({"_id": invalidation_id})
