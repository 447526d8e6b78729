"""The indexes of the store, and the shapes of its queries for one document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pymongo import ASCENDING, IndexModel

from parley_session.store.documents.fields import EPOCH

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
        ("_id", "attempt", "final", "startedAt"),
    ),
    "idempotency": (("_id", "chat", "run"),),
    "jobs": (("_id", "attempt"),),
}

# `deletedAt` is null in most chats; only tombstones are in the index.
TOMBSTONE = {"$gt": EPOCH}
INDEXES: Mapping[str, Sequence[IndexModel]] = {
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
            partialFilterExpression={"deletedAt": TOMBSTONE},
        ),
    ),
    "runs": (IndexModel("chat", name="chat"),),
    "invalidations": (IndexModel("createdAt", name="oldest"),),
    "idempotency": (IndexModel("expiresAt", name="expiry"),),
    "usage": (
        IndexModel([(name, ASCENDING) for name in ("tenant", "user", "day")], name="days"),
        IndexModel("unreported", name="unreported", sparse=True),
    ),
}
