"""Runs of the `Store` on MongoDB: every write of a holder names its attempt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from parley_session.domain.model import FrozenPrompt, Outcome, Principal, Run, RunState
from parley_session.store.base import MAX_RUNS_READ, Beat
from parley_session.store.documents import runs as documents
from parley_session.store.documents.fields import Document, projection, stored_time
from parley_session.store.mongo.queries import BATCH, Collections, batches, delete, insert, owned
from parley_session.store.mongo.seam import operation


class MongoRuns(Collections):
    """The runs."""

    @operation
    async def insert_run(self, run: Run) -> bool:
        """See `Store.insert_run`."""
        return await insert(self._runs, documents.run_to(run))

    @operation
    async def get_run(self, principal: Principal, run_id: str) -> Run | None:
        """See `Store.get_run`."""
        return _run(await self._runs.find_one(owned(principal, run_id), documents.RUN_FIELDS))

    @operation
    async def hold_run(self, run_id: str, attempt: int, holder: str, faults: int = 0) -> Run | None:
        """See `Store.hold_run`."""
        return _run(
            await self._runs.find_one_and_update(
                _unfinished(run_id, attempt),
                {"$inc": {"attempt": 1}, "$set": _holding(holder, faults)},
                projection=documents.RUN_FIELDS,
                return_document=ReturnDocument.AFTER,
            )
        )

    @operation
    async def move_beat(self, run_id: str, attempt: int) -> Beat | None:
        """See `Store.move_beat`."""
        if attempt < 1:
            return None
        document = await self._runs.find_one_and_update(
            _unfinished(run_id, attempt),
            {"$inc": {"beat": 1}},
            projection=projection("cancelRequested"),
            return_document=ReturnDocument.AFTER,
        )
        return None if document is None else Beat(document.get("cancelRequested", False))

    @operation
    async def hand_over(self, run_id: str, attempt: int) -> bool:
        """See `Store.hand_over`."""
        return await self._update_held(_unfinished(run_id, attempt), {"handedOver": attempt})

    @operation
    async def start_run(
        self,
        run_id: str,
        attempt: int,
        log: str | None,
        at: datetime,
        prompt: FrozenPrompt | None = None,
    ) -> bool:
        """See `Store.start_run`."""
        frozen = None if prompt is None else documents.prompt_to(prompt)
        first = {"log": log, "startedAt": stored_time(at), "prompt": frozen}
        return await self._update_held(
            _unfinished(run_id, attempt, startedAt=None), first
        ) or await self._update_held(_unfinished(run_id, attempt), {"log": log})

    @operation
    async def clear_log(self, run_id: str, attempt: int) -> bool:
        """See `Store.clear_log`."""
        return await self._update_held(_unfinished(run_id, attempt), {"log": None})

    @operation
    async def commit_run(self, run_id: str, attempt: int, outcome: Outcome) -> bool:
        """See `Store.commit_run`."""
        result = await self._runs.update_one(
            _unfinished(run_id, attempt), {"$set": documents.outcome_to(outcome)}
        )
        return result.matched_count == 1

    @operation
    async def request_cancel(self, principal: Principal, run_id: str) -> Run | None:
        """See `Store.request_cancel`."""
        document = await self._runs.find_one_and_update(
            owned(principal, run_id, final=False),
            {"$set": {"cancelRequested": True}},
            projection=documents.RUN_FIELDS,
            return_document=ReturnDocument.AFTER,
        )
        if document is None:
            document = await self._runs.find_one(owned(principal, run_id), documents.RUN_FIELDS)
        return _run(document)

    @operation
    async def list_run_ids(self, chat_id: str) -> Sequence[str]:
        """See `Store.list_run_ids`."""
        found = self._runs.find({"chat": chat_id}, {"_id": 1}, batch_size=MAX_RUNS_READ + 1)
        return [row["_id"] for row in await found.limit(MAX_RUNS_READ).to_list(MAX_RUNS_READ)]

    @operation
    async def fence_runs(self, run_ids: Sequence[str]) -> Sequence[str]:
        """See `Store.fence_runs`."""
        logs: list[str] = []
        for ids in batches(run_ids):
            query = {"_id": {"$in": ids}}
            await self._runs.update_many(query, {"$inc": {"attempt": 1}})
            # Read afterwards: from here on no holder can name another.
            found = self._runs.find(query, projection("log"), batch_size=BATCH + 1)
            logs += [row["log"] for row in await found.to_list(BATCH) if row.get("log")]
        return logs

    @operation
    async def delete_runs(self, run_ids: Sequence[str]) -> None:
        """See `Store.delete_runs`."""
        await delete(self._runs, run_ids)

    async def _update_held(self, query: Document, fields: Document) -> bool:
        # No holder ever has attempt 0.
        if query["attempt"] < 1:
            return False
        result = await self._runs.update_one(query, {"$set": fields})
        return result.matched_count == 1


def _unfinished(run_id: str, attempt: int, **conditions: Any) -> Document:
    """The query of an unfinished run under an attempt."""
    return {"_id": run_id, "attempt": attempt, "final": False, **conditions}


def _holding(holder: str, faults: int) -> Document:
    return {"holder": holder, "faults": faults, "state": RunState.RUNNING.value}


def _run(document: Document | None) -> Run | None:
    return None if document is None else documents.run_from(document)
