"""Idempotency records, invalidations and jobs as documents, and back."""

from __future__ import annotations

from parley_session.domain.jobs import JobEnd, JobRecord
from parley_session.domain.model import IdempotencyRecord, Invalidation
from parley_session.store.documents.fields import (
    EPOCH,
    Document,
    Fields,
    projection,
    stored_time,
)

KEY_FIELDS = projection("bodyHash", "chat", "run", "background", "expiresAt")
INVALIDATION_FIELDS = projection("tenant", "chat", "message", "createdAt")
JOB_FIELDS = projection("attempt", "running", "dueAt", "succeededAt", "left")


def key_to(record: IdempotencyRecord) -> Document:
    """A key's record as a document, ready to be inserted."""
    return {
        "_id": record.id,
        "bodyHash": record.body_hash,
        "chat": record.chat,
        "run": record.run,
        "background": record.background,
        "expiresAt": stored_time(record.expires_at),
    }


def key_from(document: Fields) -> IdempotencyRecord:
    """A key's record from a document."""
    return IdempotencyRecord(
        id=document["_id"],
        body_hash=document["bodyHash"],
        chat=document["chat"],
        run=document["run"],
        background=document.get("background", False),
        expires_at=document["expiresAt"],
    )


def invalidation_to(invalidation: Invalidation) -> Document:
    """An invalidation as a document, ready to be inserted."""
    return {
        "_id": invalidation.id,
        "tenant": invalidation.tenant,
        "chat": invalidation.chat,
        "message": invalidation.message,
        "createdAt": stored_time(invalidation.created_at),
    }


def invalidation_from(document: Fields) -> Invalidation:
    """An invalidation from a document."""
    return Invalidation(
        id=document["_id"],
        tenant=document["tenant"],
        chat=document["chat"],
        message=document.get("message"),
        created_at=document["createdAt"],
    )


def job_end_to(end: JobEnd) -> Document:
    """How a run of a job ended, as the fields that it sets."""
    fields: Document = {"running": False, "dueAt": stored_time(end.due_at)}
    if end.succeeded_at is not None:
        fields["succeededAt"] = stored_time(end.succeeded_at)
    if end.left is not None:
        fields["left"] = end.left
    return fields


def job_from(document: Fields) -> JobRecord:
    """A job's record from a document; one that never ended was due from the beginning."""
    left = document.get("left")
    return JobRecord(
        name=document["_id"],
        attempt=int(document["attempt"]),
        running=document["running"],
        due_at=document.get("dueAt", EPOCH),
        succeeded_at=document.get("succeededAt"),
        left=None if left is None else int(left),
    )
