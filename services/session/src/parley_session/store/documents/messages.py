"""Messages as documents, and back."""

from __future__ import annotations

from parley_session.domain.model import FinishReason, Message, Rating, Role, message_id
from parley_session.store.documents.fields import (
    Document,
    Fields,
    projection,
    stored_time,
    tokens_from,
    tokens_to,
    value_of,
)

MESSAGE_FIELDS = projection(
    *("chat", "tenant", "user", "seq", "role", "content", "createdAt", "run", "tokens"),
    *("finishReason", "source", "rating", "flagged"),
)


def message_to(message: Message) -> Document:
    """A message as a document, ready to be inserted."""
    return {
        "_id": message_id(message.chat, message.seq),
        "chat": message.chat,
        "tenant": message.tenant,
        "user": message.user,
        "seq": message.seq,
        "role": message.role.value,
        "content": message.content,
        "createdAt": stored_time(message.created_at),
        "run": message.run,
        "tokens": tokens_to(message.tokens),
        "finishReason": value_of(message.finish_reason),
        "source": message.source,
        "rating": value_of(message.rating),
        "flagged": message.flagged,
    }


def message_from(document: Fields) -> Message:
    """A message from a document."""
    finish_reason, rating = document.get("finishReason"), document.get("rating")
    return Message(
        chat=document["chat"],
        tenant=document["tenant"],
        user=document["user"],
        seq=document["seq"],
        role=Role(document["role"]),
        content=document["content"],
        created_at=document["createdAt"],
        run=document["run"],
        tokens=tokens_from(document.get("tokens")),
        finish_reason=None if finish_reason is None else FinishReason(finish_reason),
        source=document.get("source"),
        rating=None if rating is None else Rating(rating),
        flagged=document.get("flagged", False),
    )
