"""Periodic jobs of the `Store` on MongoDB, and how much they have to do."""

from __future__ import annotations

from datetime import datetime

from pymongo.asynchronous.collection import AsyncCollection

from parley_session.domain.jobs import JobEnd, JobRecord
from parley_session.store.base import Backlog
from parley_session.store.documents import records as documents
from parley_session.store.documents.fields import Document, stored_time
from parley_session.store.mongo.indexes import TOMBSTONE
from parley_session.store.mongo.queries import Collections, insert
from parley_session.store.mongo.seam import operation


class MongoJobs(Collections):
    """The part of the store that is about what is done from time to time."""

    @operation
    async def count_backlog(self, backlog: Backlog, before: datetime, most: int) -> int:
        """See `Store.count_backlog`."""
        collection, query = self._backlog(backlog, stored_time(before))
        return await collection.count_documents(query, limit=most)

    @operation
    async def get_job(self, name: str) -> JobRecord | None:
        """See `Store.get_job`."""
        document = await self._jobs.find_one({"_id": name}, documents.JOB_FIELDS)
        return None if document is None else documents.job_from(document)

    @operation
    async def claim_job(self, name: str, attempt: int, holder: str) -> bool:
        """See `Store.claim_job`."""
        claim: Document = {"attempt": attempt + 1, "running": True, "holder": holder}
        if attempt == 0:
            return await insert(self._jobs, {"_id": name, **claim})
        result = await self._jobs.update_one({"_id": name, "attempt": attempt}, {"$set": claim})
        return result.matched_count == 1

    @operation
    async def end_job(self, name: str, attempt: int, end: JobEnd) -> bool:
        """See `Store.end_job`."""
        fields = documents.job_end_to(end)
        result = await self._jobs.update_one({"_id": name, "attempt": attempt}, {"$set": fields})
        return result.matched_count == 1

    def _backlog(
        self, backlog: Backlog, before: datetime
    ) -> tuple[AsyncCollection[Document], Document]:
        match backlog:
            case Backlog.EXPIRED_CHATS:
                return self._chats, {"expiresAt": {"$lt": before}, "deletedAt": None}
            case Backlog.TOMBSTONES:
                return self._chats, {"deletedAt": {**TOMBSTONE, "$lt": before}}
            case Backlog.INVALIDATIONS:
                return self._invalidations, {"createdAt": {"$lt": before}}
            case Backlog.KEYS:
                return self._keys, {"expiresAt": {"$lt": before}}
            case Backlog.UNREPORTED:
                return self._usage, {"unreported": {"$lt": before.date().isoformat()}}
