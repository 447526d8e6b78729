"""The `Store` on MongoDB.

Only single-document atomicity is used, so it is right on a standalone server, a
replica set and a sharded cluster: whatever must hold together is one update of one
document, and a condition is part of that update's query. Where the new state depends
on the old one in a way that an update cannot say, the document is read and replaced
under its `revision` (compare-and-set, tried again when another was faster).

Single-document queries are equalities on `_id` and few more fields; all their shapes
stand in `SINGLE_DOCUMENT_QUERIES`. A real server finds each by `_id`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection

from parley_session.clock import utc_now
from parley_session.domain.model import (
    Chat,
    ChatListing,
    FrozenPrompt,
    Invalidation,
    Message,
    Outcome,
    Principal,
    Rating,
    Role,
    Run,
    RunState,
    Summary,
    Turn,
    message_id,
)
from parley_session.store import documents
from parley_session.store.base import (
    MAX_MESSAGES_READ,
    MAX_RUNS_READ,
    Beat,
    ListCursor,
    StoreUnavailable,
    stripped,
)
from parley_session.store.documents import Document
from parley_session.store.mongo_client import MongoOptions, OpenClient, open_client
from parley_session.store.mongo_records import RECORD_INDEXES, MongoRecords, insert
from parley_session.store.mongo_seam import Seam, operation

# Collection → the sets of fields, `_id` first, that queries for one document name beside
# `_id` alone. Servers that find by several fields only with a unique index of exactly those
# (the development stand-in) need one for each; the product makes none of them.
SINGLE_DOCUMENT_QUERIES: Mapping[str, Sequence[tuple[str, ...]]] = {
    "chats": (
        ("_id", "tenant"),
        ("_id", "tenant", "user"),
        ("_id", "tenant", "deletedAt"),
        ("_id", "tenant", "user", "deletedAt"),
        ("_id", "tenant", "user", "deletedAt", "nextSeq"),
        ("_id", "revision"),
    ),
    "messages": (
        ("_id", "tenant"),
        ("_id", "tenant", "user"),
        ("_id", "tenant", "role"),
        ("_id", "tenant", "user", "role"),
    ),
    "runs": (
        ("_id", "tenant"),
        ("_id", "tenant", "user"),
        ("_id", "tenant", "final"),
        ("_id", "tenant", "user", "final"),
        ("_id", "attempt", "final"),
        ("_id", "attempt", "final", "frozen"),
        ("_id", "attempt", "final", "startedAt"),
    ),
    "idempotency": (("_id", "chat", "run"),),
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# `deletedAt` is null in most chats; only tombstones are in the index.
_TOMBSTONE = {"$gt": _EPOCH}
_INDEXES: Mapping[str, Sequence[IndexModel]] = {
    "chats": (
        IndexModel(
            [(name, ASCENDING) for name in ("tenant", "user", "updatedAt", "_id")],
            name="list",
        ),
        IndexModel("busySince", name="busy", sparse=True),
        IndexModel("expiresAt", name="expiry", sparse=True),
        IndexModel(
            "deletedAt",
            name="tombstones",
            partialFilterExpression={"deletedAt": _TOMBSTONE},
        ),
    ),
    "runs": (IndexModel("chat", name="chat"),),
    "invalidations": (IndexModel("createdAt", name="oldest"),),
    **RECORD_INDEXES,
}

# Tries of a compare-and-set; a chat has few writers at a time.
_MAX_TRIES = 16
# Documents removed or fenced in one command.
_BATCH = 1000
_NEWEST_FIRST = [("updatedAt", -1), ("_id", -1)]


class MongoStore(MongoRecords):
    """Chats, messages, runs, invalidations, keys and usage in a MongoDB database.

    `now` says which chats have expired in a list.
    """

    def __init__(
        self,
        options: MongoOptions,
        *,
        now: Callable[[], datetime] = utc_now,
        opener: OpenClient = open_client,
    ) -> None:
        self._connection = opener(options)
        self._now = now
        self.seam = Seam(options.operation_seconds, options.max_in_flight)
        database = self._connection.database
        super().__init__(database)
        self._chats: AsyncCollection[Document] = database["chats"]
        self._messages: AsyncCollection[Document] = database["messages"]
        self._runs: AsyncCollection[Document] = database["runs"]
        self._invalidations: AsyncCollection[Document] = database["invalidations"]

    @operation
    async def prepare(self) -> None:
        """See `Store.prepare`."""
        for name, indexes in _INDEXES.items():
            await self._connection.database[name].create_indexes(list(indexes))

    @operation
    async def ping(self) -> None:
        """See `Store.ping`."""
        await self._connection.database.command("ping")

    async def close(self) -> None:
        """See `Store.close`."""
        await self._connection.close()

    # chats ------------------------------------------------------------------

    @operation
    async def insert_chat(self, chat: Chat) -> bool:
        """See `Store.insert_chat`."""
        return await insert(self._chats, documents.chat_to(chat))

    @operation
    async def get_chat(self, principal: Principal, chat_id: str) -> Chat | None:
        """See `Store.get_chat`."""
        return await self._read_chat(_owned(principal, chat_id))

    @operation
    async def accept_turn(self, principal: Principal, chat: Chat, turn: Turn, limit: int) -> bool:
        """See `Store.accept_turn`."""
        if len(chat.pending) >= limit or principal.user not in (None, chat.user):
            return False
        document = documents.turn_to(turn)
        change: Document = {
            "$push": {"pending": document},
            "$inc": {"nextSeq": 2, "revision": 1},
            "$set": {"updatedAt": document["acceptedAt"]},
            # Sets it if it is absent. A turn that was there was accepted before (as far as two
            # clocks agree; sweepers look again before they act).
            "$min": {"busySince": document["acceptedAt"]},
        }
        result = await self._chats.update_one(
            {
                "_id": chat.id,
                "tenant": principal.tenant,
                "user": chat.user,
                "deletedAt": None,
                "nextSeq": chat.next_seq,
            },
            change,
        )
        return result.matched_count == 1

    @operation
    async def settle_turn(
        self, chat_id: str, run_id: str, *, messages: int, title: str | None, at: datetime
    ) -> bool:
        """See `Store.settle_turn`."""

        def change(chat: Document) -> Document | None:
            pending = chat["pending"]
            if not pending or pending[0]["run"] != run_id:
                return None
            fields: Document = {"updatedAt": documents.stored_time(at), "pending": pending[1:]}
            if title and not chat["title"] and chat["deletedAt"] is None:
                fields["title"] = title
            update: Document = {"$set": fields, "$inc": {"messageCount": messages}}
            if pending[1:]:
                fields["busySince"] = pending[1]["acceptedAt"]
            else:
                update["$unset"] = {"busySince": ""}
            return update

        wanted = documents.projection("pending", "title", "deletedAt")
        return await self._change_chat(chat_id, wanted, change)

    @operation
    async def list_chats(
        self, principal: Principal, limit: int, after: ListCursor | None
    ) -> Sequence[ChatListing]:
        """See `Store.list_chats`."""
        if principal.user is None or limit < 1:
            raise ValueError("a list of chats needs a user and a limit")
        live = {"$or": [{"expiresAt": None}, {"expiresAt": {"$gt": self._now()}}]}
        query: Document = {
            "tenant": principal.tenant,
            "user": principal.user,
            "deletedAt": None,
            "$and": [live],
        }
        if after is not None:
            at = documents.stored_time(after.updated_at)
            # The bound on the time alone is what the index can use.
            query["updatedAt"] = {"$lte": at}
            beyond = {"$or": [{"updatedAt": {"$lt": at}}, {"_id": {"$lt": after.chat_id}}]}
            query["$and"].append(beyond)
        found = self._chats.find(
            query,
            documents.LISTING_FIELDS,
            sort=_NEWEST_FIRST,
            limit=limit,
            batch_size=limit + 1,
        )
        return [documents.listing_from(document) for document in await found.to_list(limit)]

    @operation
    async def set_summary(self, chat_id: str, since: int, summary: Summary) -> bool:
        """See `Store.set_summary`."""

        def change(chat: Document) -> Document | None:
            kept = chat.get("summary")
            if chat.get("deletedAt") is not None or (kept["untilSeq"] if kept else 0) != since:
                return None
            return {"$set": {"summary": documents.summary_to(summary)}}

        wanted = documents.projection("summary", "deletedAt")
        return await self._change_chat(chat_id, wanted, change)

    @operation
    async def set_title(self, principal: Principal, chat_id: str, title: str) -> Chat | None:
        """See `Store.set_title`."""
        return await self._update_live_chat(principal, chat_id, {"title": title})

    @operation
    async def mark_deleted(self, principal: Principal, chat_id: str, at: datetime) -> Chat | None:
        """See `Store.mark_deleted`."""
        deleted = {"deletedAt": documents.stored_time(at)}
        chat = await self._update_live_chat(principal, chat_id, deleted)
        return chat or await self._read_chat(_owned(principal, chat_id))

    @operation
    async def strip_chat(self, chat_id: str) -> None:
        """See `Store.strip_chat`."""

        def change(document: Document) -> Document | None:
            chat = documents.chat_from(document)
            if chat.deleted_at is None:
                return None
            bare = documents.chat_to(stripped(chat))
            kept = ("title", "system", "summary", "pending")
            return {"$set": {name: bare[name] for name in kept}, "$unset": {"busySince": ""}}

        await self._change_chat(chat_id, documents.CHAT_FIELDS, change)

    # messages ---------------------------------------------------------------

    @operation
    async def insert_message(self, message: Message) -> bool:
        """See `Store.insert_message`."""
        return await insert(self._messages, documents.message_to(message))

    @operation
    async def get_messages(
        self, principal: Principal, chat_id: str, first_seq: int, last_seq: int
    ) -> Sequence[Message]:
        """See `Store.get_messages`."""
        if last_seq - first_seq >= MAX_MESSAGES_READ:
            raise ValueError(f"at most {MAX_MESSAGES_READ} messages a call")
        ids = [message_id(chat_id, seq) for seq in range(first_seq, last_seq + 1)]
        if not ids:
            return []
        # Found by id alone, which every server does with an index; whose they are is judged
        # on the rows.
        found = self._messages.find(
            {"_id": {"$in": ids}}, documents.MESSAGE_FIELDS, batch_size=len(ids) + 1
        )
        mine = [
            documents.message_from(document)
            for document in await found.to_list(len(ids))
            if document["tenant"] == principal.tenant and principal.user in (None, document["user"])
        ]
        return sorted(mine, key=lambda message: message.seq)

    @operation
    async def get_message(self, principal: Principal, message_id: str) -> Message | None:
        """See `Store.get_message`."""
        document = await self._messages.find_one(
            _owned(principal, message_id), documents.MESSAGE_FIELDS
        )
        return None if document is None else documents.message_from(document)

    @operation
    async def set_tokens(self, message_id: str, tokenizer_id: str, tokens: int) -> None:
        """See `Store.set_tokens`."""
        field = f"tokens.{documents.token_key(tokenizer_id)}"
        await self._messages.update_one({"_id": message_id}, {"$set": {field: tokens}})

    @operation
    async def rate_message(self, principal: Principal, message_id: str, rating: Rating) -> bool:
        """See `Store.rate_message`."""
        result = await self._messages.update_one(
            _owned(principal, message_id, role=Role.ASSISTANT.value),
            {"$set": {"rating": rating.value, "flagged": rating is Rating.DOWN}},
        )
        return result.matched_count == 1

    @operation
    async def flag_message(self, tenant: str, message_id: str) -> None:
        """See `Store.flag_message`."""
        await self._messages.update_one(
            {"_id": message_id, "tenant": tenant}, {"$set": {"flagged": True}}
        )

    @operation
    async def delete_messages(self, chat_id: str, next_seq: int) -> None:
        """See `Store.delete_messages`."""
        await _delete(self._messages, [message_id(chat_id, seq) for seq in range(next_seq)])

    # runs -------------------------------------------------------------------

    @operation
    async def insert_run(self, run: Run) -> bool:
        """See `Store.insert_run`."""
        return await insert(self._runs, documents.run_to(run))

    @operation
    async def get_run(self, principal: Principal, run_id: str) -> Run | None:
        """See `Store.get_run`."""
        return _run(await self._runs.find_one(_owned(principal, run_id), documents.RUN_FIELDS))

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
            projection=documents.projection("cancelRequested"),
            return_document=ReturnDocument.AFTER,
        )
        return None if document is None else Beat(document.get("cancelRequested", False))

    @operation
    async def hand_over(self, run_id: str, attempt: int) -> bool:
        """See `Store.hand_over`."""
        return await self._update_held(_unfinished(run_id, attempt), {"handedOver": attempt})

    @operation
    async def freeze_prompt(self, run_id: str, attempt: int, prompt: FrozenPrompt) -> bool:
        """See `Store.freeze_prompt`."""
        fields = {"prompt": documents.prompt_to(prompt), "frozen": True}
        return await self._update_held(_unfinished(run_id, attempt, frozen=False), fields)

    @operation
    async def start_run(self, run_id: str, attempt: int, log: str | None, at: datetime) -> bool:
        """See `Store.start_run`."""
        first = {"log": log, "startedAt": documents.stored_time(at)}
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
            _owned(principal, run_id, final=False),
            {"$set": {"cancelRequested": True}},
            projection=documents.RUN_FIELDS,
            return_document=ReturnDocument.AFTER,
        )
        if document is None:
            document = await self._runs.find_one(_owned(principal, run_id), documents.RUN_FIELDS)
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
        for ids in _batches(run_ids):
            query = {"_id": {"$in": ids}}
            await self._runs.update_many(query, {"$inc": {"attempt": 1}})
            # Read afterwards: from here on no holder can name another.
            found = self._runs.find(query, documents.projection("log"), batch_size=_BATCH + 1)
            logs += [row["log"] for row in await found.to_list(_BATCH) if row.get("log")]
        return logs

    @operation
    async def delete_runs(self, run_ids: Sequence[str]) -> None:
        """See `Store.delete_runs`."""
        await _delete(self._runs, run_ids)

    # invalidations ----------------------------------------------------------

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

    # sweeping ---------------------------------------------------------------

    @operation
    async def list_busy_chats(self, before: datetime, limit: int) -> Sequence[Chat]:
        """See `Store.list_busy_chats`."""
        earlier = {"$lt": documents.stored_time(before)}
        return await self._earliest({"busySince": earlier, "deletedAt": None}, "busySince", limit)

    @operation
    async def list_expired_chats(self, at: datetime, limit: int) -> Sequence[Chat]:
        """See `Store.list_expired_chats`."""
        passed = {"$lte": documents.stored_time(at)}
        return await self._earliest({"expiresAt": passed, "deletedAt": None}, "expiresAt", limit)

    @operation
    async def list_tombstones(
        self, after: datetime, before: datetime, limit: int
    ) -> Sequence[Chat]:
        """See `Store.list_tombstones`."""
        between = {
            **_TOMBSTONE,
            "$gte": documents.stored_time(after),
            "$lt": documents.stored_time(before),
        }
        return await self._earliest({"deletedAt": between}, "deletedAt", limit)

    @operation
    async def remove_tombstone(self, chat_id: str) -> None:
        """See `Store.remove_tombstone`."""
        # `deletedAt` is never cleared: what was a tombstone when read is one still.
        chat = await self._chats.find_one({"_id": chat_id}, documents.projection("deletedAt"))
        if chat is not None and chat.get("deletedAt") is not None:
            await self._chats.delete_one({"_id": chat_id})

    # helpers ------------------------------------------------------------------

    async def _read_chat(self, query: Document) -> Chat | None:
        document = await self._chats.find_one(query, documents.CHAT_FIELDS)
        return None if document is None else documents.chat_from(document)

    async def _update_live_chat(
        self, principal: Principal, chat_id: str, fields: Document
    ) -> Chat | None:
        document = await self._chats.find_one_and_update(
            _owned(principal, chat_id, deletedAt=None),
            {"$set": fields, "$inc": {"revision": 1}},
            projection=documents.CHAT_FIELDS,
            return_document=ReturnDocument.AFTER,
        )
        return None if document is None else documents.chat_from(document)

    async def _change_chat(
        self,
        chat_id: str,
        wanted: Mapping[str, Any],
        change: Callable[[Document], Document | None],
    ) -> bool:
        """Read, compute, compare-and-set on the revision; False if `change` says None."""
        for _ in range(_MAX_TRIES):
            document = await self._chats.find_one({"_id": chat_id}, {**wanted, "revision": 1})
            update = None if document is None else change(document)
            if document is None or update is None:
                return False
            update["$inc"] = {**update.get("$inc", {}), "revision": 1}
            result = await self._chats.update_one(
                {"_id": chat_id, "revision": document["revision"]}, update
            )
            if result.matched_count == 1:
                return True
        raise StoreUnavailable(f"a chat changed {_MAX_TRIES} times while it was being written")

    async def _update_held(self, query: Document, fields: Document) -> bool:
        # No holder ever has attempt 0.
        if query["attempt"] < 1:
            return False
        result = await self._runs.update_one(query, {"$set": fields})
        return result.matched_count == 1

    async def _earliest(self, query: Document, field: str, limit: int) -> list[Chat]:
        found = self._chats.find(
            query,
            documents.CHAT_FIELDS,
            sort=[(field, ASCENDING)],
            limit=limit,
            batch_size=limit + 1,
        )
        return [documents.chat_from(document) for document in await found.to_list(limit)]


def _owned(principal: Principal, document_id: str, **conditions: Any) -> Document:
    """The query of what belongs to a caller."""
    query: Document = {"_id": document_id, "tenant": principal.tenant}
    if principal.user is not None:
        query["user"] = principal.user
    return query | conditions


def _unfinished(run_id: str, attempt: int, **conditions: Any) -> Document:
    """The query of an unfinished run under an attempt."""
    return {"_id": run_id, "attempt": attempt, "final": False, **conditions}


def _holding(holder: str, faults: int) -> Document:
    return {"holder": holder, "faults": faults, "state": RunState.RUNNING.value}


def _run(document: Document | None) -> Run | None:
    return None if document is None else documents.run_from(document)


def _batches(ids: Sequence[str]) -> list[list[str]]:
    return [list(ids[start : start + _BATCH]) for start in range(0, len(ids), _BATCH)]


async def _delete(collection: AsyncCollection[Document], ids: Sequence[str]) -> None:
    for batch in _batches(ids):
        await collection.delete_many({"_id": {"$in": batch}})
