"""Reading a whole database in pages, for operators: no replica does.

Everything is read by id or by an index, but for `poisoned`, which looks at every run.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any

from parley_session.domain.model import Chat, Message, Run
from parley_session.store.documents import chats, messages, runs
from parley_session.store.documents.fields import Document, projection
from parley_session.store.mongo.seam import operation
from parley_session.store.mongo.store import MongoStore

# Documents a page.
PAGE = 200


class MongoInspector(MongoStore):
    """A `Store` that can be read through."""

    async def every_chat(self, tenant: str | None = None) -> AsyncGenerator[Chat, None]:
        """Read all chats, or a tenant's, tombstones included, by id."""
        query = {} if tenant is None else {"tenant": tenant}
        async for document in self._every(self._chats, query, chats.CHAT_FIELDS):
            yield chats.chat_from(document)

    async def poisoned(self, tenant: str | None = None) -> AsyncGenerator[Run, None]:
        """Read the runs that ended as `poisoned`, by id."""
        query: Document = {"error.code": "poisoned"}
        if tenant is not None:
            query["tenant"] = tenant
        async for document in self._every(self._runs, query, runs.RUN_FIELDS):
            yield runs.run_from(document)

    async def owners(self, name: str) -> AsyncGenerator[tuple[str, str], None]:
        """Read the id and the chat of every document of `messages` or `runs`."""
        async for document in self._every(self._database[name], {}, projection("chat")):
            yield document["_id"], document["chat"]

    @operation
    async def find_run(self, run_id: str) -> Run | None:
        """Read a run, whoever's it is."""
        document = await self._runs.find_one({"_id": run_id}, runs.RUN_FIELDS)
        return None if document is None else runs.run_from(document)

    @operation
    async def find_chat(self, chat_id: str) -> Chat | None:
        """Read a chat, whoever's it is."""
        document = await self._chats.find_one({"_id": chat_id}, chats.CHAT_FIELDS)
        return None if document is None else chats.chat_from(document)

    @operation
    async def runs_of(self, chat_id: str, after: str = "") -> Sequence[Run]:
        """Read a page of a chat's runs, by id."""
        query = {"chat": chat_id, "_id": {"$gt": after}}
        found = self._runs.find(query, runs.RUN_FIELDS, batch_size=PAGE + 1).sort("_id", 1)
        return [runs.run_from(row) for row in await found.limit(PAGE).to_list(PAGE)]

    @operation
    async def messages_of(self, chat_id: str, seqs: range) -> Sequence[Message]:
        """Read messages by computed ids."""
        ids = [f"{chat_id}-{seq}" for seq in seqs]
        found = self._messages.find(
            {"_id": {"$in": ids}}, messages.MESSAGE_FIELDS, batch_size=len(ids) + 1
        )
        return [messages.message_from(row) for row in await found.to_list(len(ids))]

    @operation
    async def known(self, name: str, ids: Collection[str]) -> frozenset[str]:
        """Which of these ids a collection has."""
        found = self._database[name].find(
            {"_id": {"$in": list(ids)}}, {"_id": 1}, batch_size=len(ids) + 1
        )
        return frozenset(row["_id"] for row in await found.to_list(len(ids)))

    async def _every(
        self, collection: Any, query: Document, fields: Any
    ) -> AsyncGenerator[Document, None]:
        after = ""
        while True:
            page = await self._page(collection, {**query, "_id": {"$gt": after}}, fields)
            for document in page:
                yield document
            if len(page) < PAGE:
                return
            after = page[-1]["_id"]

    @operation
    async def _page(self, collection: Any, query: Document, fields: Any) -> Sequence[Document]:
        found = collection.find(query, fields, batch_size=PAGE + 1).sort("_id", 1)
        page: Sequence[Document] = await found.limit(PAGE).to_list(PAGE)
        return page
