"""What the parts of the store share: its collections, and queries of common shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from parley_session.domain.model import Principal
from parley_session.store.documents.fields import Document
from parley_session.store.mongo.seam import Seam

# Documents removed or fenced in one command.
BATCH = 1000


class Collections:
    """The collections of a store, and the seam that guards them."""

    def __init__(self, database: AsyncDatabase[Document], seam: Seam) -> None:
        self.seam = seam
        self._database = database
        self._chats: AsyncCollection[Document] = database["chats"]
        self._messages: AsyncCollection[Document] = database["messages"]
        self._runs: AsyncCollection[Document] = database["runs"]
        self._invalidations: AsyncCollection[Document] = database["invalidations"]
        self._keys: AsyncCollection[Document] = database["idempotency"]
        self._usage: AsyncCollection[Document] = database["usage"]
        self._report: AsyncCollection[Document] = database["usageReport"]
        self._jobs: AsyncCollection[Document] = database["jobs"]


async def insert(collection: AsyncCollection[Document], document: Document) -> bool:
    """Insert a document. False: its id is there already."""
    try:
        await collection.insert_one(document)
    except DuplicateKeyError:
        return False
    return True


async def delete(collection: AsyncCollection[Document], ids: Sequence[str]) -> None:
    """Remove documents by their ids."""
    for batch in batches(ids):
        await collection.delete_many({"_id": {"$in": batch}})


def owned(principal: Principal, document_id: str, **conditions: Any) -> Document:
    """The query of what belongs to a caller."""
    query: Document = {"_id": document_id, "tenant": principal.tenant}
    if principal.user is not None:
        query["user"] = principal.user
    return query | conditions


def batches(ids: Sequence[str]) -> list[list[str]]:
    """Split ids into as many as one command may name."""
    return [list(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]
