"""Chats as documents, and back."""

from __future__ import annotations

from parley_session.domain.model import Chat, ChatListing, Summary
from parley_session.store.documents.fields import (
    Document,
    Fields,
    optional_time,
    projection,
    stored_time,
    tokens_from,
    tokens_to,
)
from parley_session.store.documents.turns import turn_from, turn_to

LISTING_FIELDS = projection("title", "createdAt", "updatedAt", "messageCount")
CHAT_FIELDS = projection(
    *("tenant", "user", "title", "system", "model", "createdAt", "updatedAt", "expiresAt"),
    *("deletedAt", "nextSeq", "messageCount", "pending", "summary", "revision"),
)


def chat_to(chat: Chat) -> Document:
    """A chat as a document, ready to be inserted."""
    document: Document = {
        "_id": chat.id,
        "tenant": chat.tenant,
        "user": chat.user,
        "title": chat.title,
        "system": chat.system,
        "model": chat.model,
        "createdAt": stored_time(chat.created_at),
        "updatedAt": stored_time(chat.updated_at),
        "deletedAt": optional_time(chat.deleted_at),
        "nextSeq": chat.next_seq,
        "messageCount": chat.message_count,
        "pending": [turn_to(turn) for turn in chat.pending],
        "summary": None if chat.summary is None else summary_to(chat.summary),
        "revision": 0,
    }
    # Absent rather than null, so that sparse indexes hold only what sweepers look for.
    if chat.expires_at is not None:
        document["expiresAt"] = stored_time(chat.expires_at)
    if chat.pending:
        document["busySince"] = stored_time(chat.pending[0].accepted_at)
    return document


def chat_from(document: Fields) -> Chat:
    """A chat from a document."""
    summary = document.get("summary")
    return Chat(
        id=document["_id"],
        tenant=document["tenant"],
        user=document["user"],
        title=document.get("title", ""),
        system=document.get("system", ""),
        model=document.get("model", ""),
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        expires_at=document.get("expiresAt"),
        deleted_at=document.get("deletedAt"),
        next_seq=document.get("nextSeq", 0),
        message_count=document.get("messageCount", 0),
        pending=tuple(turn_from(turn) for turn in document.get("pending") or ()),
        summary=None if summary is None else _summary_from(summary),
        revision=document.get("revision", 0),
    )


def summary_to(summary: Summary) -> Document:
    """A summary as a sub-document."""
    return {
        "text": summary.text,
        "untilSeq": summary.until_seq,
        "tokens": tokens_to(summary.tokens),
    }


def _summary_from(fields: Fields) -> Summary:
    return Summary(
        text=fields["text"],
        until_seq=fields["untilSeq"],
        tokens=tokens_from(fields.get("tokens")),
    )


def listing_from(document: Fields) -> ChatListing:
    """A row of a list of chats from a document."""
    return ChatListing(
        id=document["_id"],
        title=document.get("title", ""),
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        message_count=document.get("messageCount", 0),
    )
