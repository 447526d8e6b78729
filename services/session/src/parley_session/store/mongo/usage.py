"""Usage of the `Store` on MongoDB.

Usage is a ledger, not a counter: one small document a run, inserted under the run's
own id. So finishing a run again adds nothing, by an index alone; runs that end at the
same moment do not wait for each other; and what is deleted later has been counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from parley_session.domain.model import Principal
from parley_session.domain.usage import ReportRow, UsageDay, UsageRecord, UserDay
from parley_session.store.base import MAX_USAGE_DAYS, StoreUnavailable
from parley_session.store.documents import usage as documents
from parley_session.store.documents.fields import Document
from parley_session.store.mongo.queries import Collections, insert
from parley_session.store.mongo.seam import operation

# Models that one user may have asked in one day.
_MAX_MODELS = 10_000


class MongoUsage(Collections):
    """What was used, and the report of it."""

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
        match = {
            "tenant": principal.tenant,
            "user": principal.user,
            "day": {"$gte": begin, "$lte": end},
        }
        rows = await self._sum(match, "$day", MAX_USAGE_DAYS)
        return [documents.usage_day_from(row["_id"], row) for row in rows]

    @operation
    async def list_unreported(self, before: date, limit: int) -> Sequence[UserDay]:
        """See `Store.list_unreported`."""
        rows = self._usage.find(
            {"unreported": {"$lt": before.isoformat()}},
            documents.USER_DAY_FIELDS,
            sort=[("unreported", ASCENDING)],
            limit=limit,
            batch_size=limit + 1,
        )
        return sorted({documents.user_day_from(row) for row in await rows.to_list(limit)})

    @operation
    async def mark_reporting(self, whose: UserDay, token: str) -> None:
        """See `Store.mark_reporting`."""
        query = documents.user_day_to(whose) | {"unreported": whose.day.isoformat()}
        await self._usage.update_many(query, {"$set": {"reporting": token}})

    @operation
    async def sum_models(self, whose: UserDay) -> Sequence[ReportRow]:
        """See `Store.sum_models`."""
        rows = await self._sum(documents.user_day_to(whose), "$model", _MAX_MODELS)
        return [documents.model_row(whose, row["_id"], row) for row in rows]

    @operation
    async def raise_report(self, row: ReportRow) -> None:
        """See `Store.raise_report`."""
        change = {"$max": documents.sums_to(row), "$setOnInsert": documents.report_names(row)}
        for _ in range(2):
            try:
                await self._report.update_one(
                    {"_id": documents.report_id(row)}, change, upsert=True
                )
            except DuplicateKeyError:
                # Another one inserted the row at the same moment: it is there now.
                continue
            return
        raise StoreUnavailable("a row of the report came and went")

    @operation
    async def settle_reporting(self, whose: UserDay, token: str) -> None:
        """See `Store.settle_reporting`."""
        query = documents.user_day_to(whose) | {"reporting": token}
        await self._usage.update_many(query, {"$unset": {"unreported": "", "reporting": ""}})

    @operation
    async def list_report(
        self, first: date, last: date, tenant: str | None, after: ReportRow | None, limit: int
    ) -> Sequence[ReportRow]:
        """See `Store.list_report`."""
        begin, end = documents.report_bounds(first, last, after)
        query: Document = {"_id": {"$gt": begin, "$lt": end}}
        if tenant is not None:
            query["tenant"] = tenant
        rows = self._report.find(
            query,
            documents.REPORT_FIELDS,
            sort=[("_id", ASCENDING)],
            limit=limit,
            batch_size=limit + 1,
        )
        return [documents.report_from(row) for row in await rows.to_list(limit)]

    async def _sum(self, match: Document, by: str, most: int) -> Sequence[Document]:
        """Sum records by a field, in its order."""
        sums: dict[str, Any] = {name: {"$sum": f"${name}"} for name in documents.USAGE_SUMS}
        # As a command: the two clients differ in how a cursor of it is had. One batch has it all.
        answer = await self._database.command(
            {
                "aggregate": "usage",
                "pipeline": [
                    {"$match": match},
                    {"$group": {"_id": by, **sums}},
                    {"$sort": {"_id": 1}},
                ],
                "cursor": {"batchSize": most + 1},
            }
        )
        rows: Sequence[Document] = answer["cursor"]["firstBatch"]
        return rows
