"""Chats of the `Store` on MongoDB, and what sweepers look for among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase

from parley_session.domain.model import Chat, ChatListing, Principal, Summary, Turn
from parley_session.store.base import ListCursor, StoreUnavailable, stripped
from parley_session.store.documents import chats as documents
from parley_session.store.documents.fields import Document, projection, stored_time
from parley_session.store.documents.turns import turn_to
from parley_session.store.mongo.indexes import TOMBSTONE
from parley_session.store.mongo.queries import Collections, insert, owned
from parley_session.store.mongo.seam import Seam, operation

# Tries of a compare-and-set; a chat has few writers at a time.
_MAX_TRIES = 16
_NEWEST_FIRST = [("updatedAt", -1), ("_id", -1)]


class MongoChats(Collections):
    """The chats."""

    def __init__(
        self, database: AsyncDatabase[Document], seam: Seam, now: Callable[[], datetime]
    ) -> None:
        super().__init__(database, seam)
        self._now = now

    @operation
    async def insert_chat(self, chat: Chat) -> bool:
        """See `Store.insert_chat`."""
        return await insert(self._chats, documents.chat_to(chat))

    @operation
    async def get_chat(self, principal: Principal, chat_id: str) -> Chat | None:
        """See `Store.get_chat`."""
        return await self._read_chat(owned(principal, chat_id))

    @operation
    async def accept_turn(self, principal: Principal, chat: Chat, turn: Turn, limit: int) -> bool:
        """See `Store.accept_turn`."""
        if len(chat.pending) >= limit or principal.user not in (None, chat.user):
            return False
        document = turn_to(turn)
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
        self,
        chat_id: str,
        run_id: str,
        *,
        messages: int,
        title: Callable[[str], str] | None,
        at: datetime,
        known: Chat | None = None,
    ) -> Chat | None:
        """See `Store.settle_turn`."""
        mine = known is not None and known.pending and known.pending[0].run == run_id
        chat = known if mine else None
        for _ in range(_MAX_TRIES):
            if chat is None:
                chat = await self._read_chat({"_id": chat_id})
            if chat is None or not chat.pending or chat.pending[0].run != run_id:
                return None
            turn, waiting = chat.pending[0], chat.pending[1:]
            fields: Document = {"updatedAt": stored_time(at)}
            if title and not chat.title and chat.deleted_at is None:
                fields["title"] = title(turn.message)
            update: Document = {
                "$pop": {"pending": -1},
                "$set": fields,
                "$inc": {"messageCount": messages, "revision": 1},
            }
            if waiting:
                fields["busySince"] = stored_time(waiting[0].accepted_at)
            else:
                update["$unset"] = {"busySince": ""}
            settled = await self._chats.find_one_and_update(
                {"_id": chat_id, "revision": chat.revision},
                update,
                projection=documents.CHAT_FIELDS,
                return_document=ReturnDocument.AFTER,
            )
            if settled is not None:
                return documents.chat_from(settled)
            chat = None
        raise _written_too_often()

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
            at = stored_time(after.updated_at)
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

        wanted = projection("summary", "deletedAt")
        return await self._change_chat(chat_id, wanted, change)

    @operation
    async def set_title(self, principal: Principal, chat_id: str, title: str) -> Chat | None:
        """See `Store.set_title`."""
        return await self._update_live_chat(principal, chat_id, {"title": title})

    @operation
    async def mark_deleted(self, principal: Principal, chat_id: str, at: datetime) -> Chat | None:
        """See `Store.mark_deleted`."""
        deleted = {"deletedAt": stored_time(at)}
        chat = await self._update_live_chat(principal, chat_id, deleted)
        return chat or await self._read_chat(owned(principal, chat_id))

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

    @operation
    async def list_busy_chats(
        self, before: datetime, limit: int, now: datetime | None = None
    ) -> Sequence[Chat]:
        """See `Store.list_busy_chats`."""
        since: list[Document] = [{"busySince": {"$lt": stored_time(before)}}]
        if now is not None:
            since.append({"busySince": {"$gt": stored_time(now)}})
        return await self._earliest({"$or": since, "deletedAt": None}, "busySince", limit)

    @operation
    async def list_expired_chats(self, at: datetime, limit: int) -> Sequence[Chat]:
        """See `Store.list_expired_chats`."""
        passed = {"$lte": stored_time(at)}
        return await self._earliest({"expiresAt": passed, "deletedAt": None}, "expiresAt", limit)

    @operation
    async def list_tombstones(
        self, after: datetime, before: datetime, limit: int
    ) -> Sequence[Chat]:
        """See `Store.list_tombstones`."""
        between = {
            **TOMBSTONE,
            "$gte": stored_time(after),
            "$lt": stored_time(before),
        }
        return await self._earliest({"deletedAt": between}, "deletedAt", limit)

    @operation
    async def remove_tombstone(self, chat_id: str) -> None:
        """See `Store.remove_tombstone`."""
        # `deletedAt` is never cleared: what was a tombstone when read is one still.
        chat = await self._chats.find_one({"_id": chat_id}, projection("deletedAt"))
        if chat is not None and chat.get("deletedAt") is not None:
            await self._chats.delete_one({"_id": chat_id})

    async def _read_chat(self, query: Document) -> Chat | None:
        document = await self._chats.find_one(query, documents.CHAT_FIELDS)
        return None if document is None else documents.chat_from(document)

    async def _update_live_chat(
        self, principal: Principal, chat_id: str, fields: Document
    ) -> Chat | None:
        document = await self._chats.find_one_and_update(
            owned(principal, chat_id, deletedAt=None),
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
        raise _written_too_often()

    async def _earliest(self, query: Document, field: str, limit: int) -> list[Chat]:
        found = self._chats.find(
            query,
            documents.CHAT_FIELDS,
            sort=[(field, ASCENDING)],
            limit=limit,
            batch_size=limit + 1,
        )
        return [documents.chat_from(document) for document in await found.to_list(limit)]


def _written_too_often() -> StoreUnavailable:
    return StoreUnavailable(f"a chat changed {_MAX_TRIES} times while it was being written")
