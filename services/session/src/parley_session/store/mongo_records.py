"""Idempotency keys and usage of the `Store` on MongoDB.

Usage is a ledger, not a counter: one small document a run, inserted under the run's
own id. So finishing a run again adds nothing, by an index alone; runs that end at the
same moment do not wait for each other; and what is deleted later has been counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from parley_session.domain.model import IdempotencyRecord, Principal, UsageDay, UsageRecord
from parley_session.store import record_documents as documents
from parley_session.store.base import MAX_USAGE_DAYS
from parley_session.store.documents import Document, stored_time
from parley_session.store.mongo_seam import Seam, operation

RECORD_INDEXES: Mapping[str, Sequence[IndexModel]] = {
    "idempotency": (IndexModel("expiresAt", name="expiry"),),
    "usage": (IndexModel([(name, ASCENDING) for name in ("tenant", "user", "day")], name="days"),),
}


class MongoRecords:
    """The part of the store that is about neither chats nor runs."""

    seam: Seam

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._database = database
        self._keys: AsyncCollection[Document] = database["idempotency"]
        self._usage: AsyncCollection[Document] = database["usage"]

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
        if found:
            # Unless it was replaced meanwhile.
            await self._keys.delete_many({"_id": {"$in": found}, "expiresAt": past})
        return len(found)

    @operation
    async def insert_usage(self, record: UsageRecord) -> bool:
        """See `Store.insert_usage`."""
        return await insert(self._usage, documents.usage_to(record))

    @operation
    async def sum_usage(self, principal: Principal, first: date, last: date) -> Sequence[UsageDay]:
        """See `Store.sum_usage`."""
        if principal.user is None:
            raise ValueError("usage is a user's")
        begin, end = documents.checked_days(first, last, MAX_USAGE_DAYS)
        sums = {name: {"$sum": f"${name}"} for name in documents.USAGE_SUMS}
        # As a command: the two clients differ in how a cursor of it is had. One batch has it all.
        answer = await self._database.command(
            {
                "aggregate": "usage",
                "pipeline": [
                    {
                        "$match": {
                            "tenant": principal.tenant,
                            "user": principal.user,
                            "day": {"$gte": begin, "$lte": end},
                        }
                    },
                    {"$group": {"_id": "$day", **sums}},
                    {"$sort": {"_id": 1}},
                ],
                "cursor": {"batchSize": MAX_USAGE_DAYS + 1},
            }
        )
        rows: Sequence[Document] = answer["cursor"]["firstBatch"]
        return [documents.usage_day_from(row["_id"], row) for row in rows]


async def insert(collection: AsyncCollection[Document], document: Document) -> bool:
    """Insert a document. False: its id is there already."""
    try:
        await collection.insert_one(document)
    except DuplicateKeyError:
        return False
    return True
