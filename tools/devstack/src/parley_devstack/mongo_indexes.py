"""Indexes that only the MongoDB stand-in needs.

mongo-java-server finds one document without a scan, and updates it atomically
against others, only through a unique index of *exactly* the query's fields. So each
single-document query of the session store that names more than `_id` has an index
here; beginning with `_id`, it is unique in any case. The product makes the indexes
it needs itself, and a real MongoDB needs none of these.

A compound index is used by queries whose values are plain (no `$in`, no operator):
that is a limit of the stand-in too.
"""

from __future__ import annotations

# Collection → the field sets of its single-document queries, `_id` first: a copy of the
# session store's SINGLE_DOCUMENT_QUERIES, which its conformance suite compares.
LOOKUP_INDEXES: dict[str, tuple[tuple[str, ...], ...]] = {
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


def index_name(fields: tuple[str, ...]) -> str:
    """Returns a name that no index of the product has."""
    return "standin_" + "_".join(fields)


def create_indexes_commands() -> list[dict[str, object]]:
    """Returns one `createIndexes` command for each collection; repeating it changes nothing."""
    commands: list[dict[str, object]] = []
    for collection, field_sets in LOOKUP_INDEXES.items():
        for fields in field_sets:
            if fields[0] != "_id" or len(fields) < 2:
                raise ValueError(f"{collection}: a lookup index begins with _id: {fields}")
        indexes = [
            {"key": dict.fromkeys(fields, 1), "name": index_name(fields), "unique": True}
            for fields in field_sets
        ]
        commands.append({"createIndexes": collection, "indexes": indexes})
    return commands
