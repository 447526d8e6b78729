"""The `Store` on MongoDB.

Only single-document atomicity is used, so it is right on a standalone server, a
replica set and a sharded cluster: whatever must hold together is one update of one
document, and a condition is part of that update's query. Where the new state depends
on the old one in a way that an update cannot say, the document is read and replaced
under its `revision` (compare-and-set, tried again when another was faster).

Single-document queries are equalities on `_id` and few more fields; all their shapes
stand in `indexes.SINGLE_DOCUMENT_QUERIES`. A real server finds each by `_id`.
"""
