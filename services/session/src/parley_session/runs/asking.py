"""What is asked for, and what comes of it: a chat to make, a message to answer, a turn accepted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from parley_session.clock import Clock
from parley_session.domain import errors
from parley_session.domain.model import Chat, Options, Principal, Run
from parley_session.runs.keys import RequestKey
from parley_session.runs.live import LiveRun
from parley_session.store.base import Store


@dataclass(frozen=True, slots=True)
class NewChat:
    """How to make a chat."""

    title: str
    system: str
    # Empty: the default model.
    model: str
    # 0: kept until deleted.
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A message to be answered. `new_chat`: in a chat that this call makes."""

    chat_id: str
    run_id: str
    message: str
    options: Options
    new_chat: NewChat | None = None
    # Where it stands for an earlier request, that one's ids come before these.
    key: RequestKey | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A turn that is stored, with its run; `live` if it is made here."""

    run: Run
    live: LiveRun | None
    # It had been accepted before this call.
    repeated: bool
    # By another request with the same key.
    replayed: bool = False
    # With a key: the first request did not wait for its answer.
    background: bool = False


def new_chat(  # noqa: PLR0917 - the names are plain
    chat_id: str, tenant: str, user: str, new: NewChat, model: str, now: datetime
) -> Chat:
    """Make an empty chat."""
    return Chat(
        id=chat_id,
        tenant=tenant,
        user=user,
        title=new.title,
        system=new.system,
        model=model,
        created_at=now,
        updated_at=now,
        expires_at=now + timedelta(seconds=new.ttl_seconds) if new.ttl_seconds else None,
    )


def is_gone(chat: Chat, clock: Clock) -> bool:
    """Whether a chat is deleted, or past its expiry, which is the same to callers."""
    return chat.deleted_at is not None or (
        chat.expires_at is not None and chat.expires_at <= clock.now()
    )


async def find_chat(store: Store, clock: Clock, principal: Principal, chat_id: str) -> Chat:
    """Read a chat of the caller's that is not gone. Raises `not_found`."""
    chat = await store.get_chat(principal, chat_id)
    if chat is None or is_gone(chat, clock):
        raise errors.not_found("chat")
    return chat
