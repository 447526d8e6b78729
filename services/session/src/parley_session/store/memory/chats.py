"""Chats of a `MemoryStore`, and what sweepers look for among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from parley_session.clock import utc_now
from parley_session.domain.model import Chat, ChatListing, Principal, Summary, Turn
from parley_session.store.base import ListCursor, stripped
from parley_session.store.documents import chats as documents
from parley_session.store.documents.fields import stored_time
from parley_session.store.documents.turns import turn_from, turn_to
from parley_session.store.memory.part import Part, owned


class MemoryChats(Part):
    """The chats."""

    def __init__(self, now: Callable[[], datetime] = utc_now) -> None:
        super().__init__()
        self._now = now
        self._chats: dict[str, Chat] = {}

    async def insert_chat(self, chat: Chat) -> bool:
        """See `Store.insert_chat`."""
        self._reach()
        if chat.id in self._chats:
            return False
        self._chats[chat.id] = documents.chat_from(documents.chat_to(chat))
        return True

    async def get_chat(self, principal: Principal, chat_id: str) -> Chat | None:
        """See `Store.get_chat`."""
        self._reach()
        return owned(principal, self._chats.get(chat_id))

    async def accept_turn(self, principal: Principal, chat: Chat, turn: Turn, limit: int) -> bool:
        """See `Store.accept_turn`."""
        self._reach()
        kept = owned(principal, self._chats.get(chat.id))
        if (
            len(chat.pending) >= limit
            or kept is None
            or kept.user != chat.user
            or kept.deleted_at is not None
            or kept.next_seq != chat.next_seq
        ):
            return False
        turn = turn_from(turn_to(turn))
        self._keep(
            replace(
                kept,
                pending=(*kept.pending, turn),
                next_seq=kept.next_seq + 2,
                updated_at=turn.accepted_at,
            )
        )
        return True

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
        del known
        self._reach()
        chat = self._chats.get(chat_id)
        if chat is None or not chat.pending or chat.pending[0].run != run_id:
            return None
        untitled = not chat.title and chat.deleted_at is None
        return self._keep(
            replace(
                chat,
                pending=chat.pending[1:],
                message_count=chat.message_count + messages,
                updated_at=stored_time(at),
                title=title(chat.pending[0].message) if title and untitled else chat.title,
            )
        )

    async def list_chats(
        self, principal: Principal, limit: int, after: ListCursor | None
    ) -> Sequence[ChatListing]:
        """See `Store.list_chats`."""
        self._reach()
        if principal.user is None or limit < 1:
            raise ValueError("a list of chats needs a user and a limit")
        now = stored_time(self._now())
        found = [
            chat
            for chat in self._chats.values()
            if (chat.tenant, chat.user) == (principal.tenant, principal.user)
            and chat.deleted_at is None
            and (chat.expires_at is None or chat.expires_at > now)
            and (
                after is None
                or (chat.updated_at, chat.id) < (stored_time(after.updated_at), after.chat_id)
            )
        ]
        found.sort(key=lambda chat: (chat.updated_at, chat.id), reverse=True)
        return [
            ChatListing(c.id, c.title, c.created_at, c.updated_at, c.message_count)
            for c in found[:limit]
        ]

    async def set_summary(self, chat_id: str, since: int, summary: Summary) -> bool:
        """See `Store.set_summary`."""
        self._reach()
        chat = self._chats.get(chat_id)
        if chat is None or chat.deleted_at is not None:
            return False
        if (chat.summary.until_seq if chat.summary else 0) != since:
            return False
        self._keep(replace(chat, summary=summary))
        return True

    async def set_title(self, principal: Principal, chat_id: str, title: str) -> Chat | None:
        """See `Store.set_title`."""
        self._reach()
        chat = owned(principal, self._chats.get(chat_id))
        if chat is None or chat.deleted_at is not None:
            return None
        return self._keep(replace(chat, title=title))

    async def mark_deleted(self, principal: Principal, chat_id: str, at: datetime) -> Chat | None:
        """See `Store.mark_deleted`."""
        self._reach()
        chat = owned(principal, self._chats.get(chat_id))
        if chat is not None and chat.deleted_at is None:
            chat = self._keep(replace(chat, deleted_at=stored_time(at)))
        return chat

    async def strip_chat(self, chat_id: str) -> None:
        """See `Store.strip_chat`."""
        self._reach()
        chat = self._chats.get(chat_id)
        if chat is not None and chat.deleted_at is not None:
            self._keep(stripped(chat))

    async def list_busy_chats(
        self, before: datetime, limit: int, now: datetime | None = None
    ) -> Sequence[Chat]:
        """See `Store.list_busy_chats`."""
        self._reach()

        def listed(since: datetime) -> bool:
            return since < stored_time(before) or (now is not None and since > stored_time(now))

        return _earliest(
            (
                (chat.pending[0].accepted_at, chat)
                for chat in self._chats.values()
                if chat.pending and chat.deleted_at is None and listed(chat.pending[0].accepted_at)
            ),
            limit,
        )

    async def list_expired_chats(self, at: datetime, limit: int) -> Sequence[Chat]:
        """See `Store.list_expired_chats`."""
        self._reach()
        return _earliest(
            (
                (chat.expires_at, chat)
                for chat in self._chats.values()
                if chat.expires_at is not None
                and chat.deleted_at is None
                and chat.expires_at <= stored_time(at)
            ),
            limit,
        )

    async def list_tombstones(
        self, after: datetime, before: datetime, limit: int
    ) -> Sequence[Chat]:
        """See `Store.list_tombstones`."""
        self._reach()
        return _earliest(
            (
                (chat.deleted_at, chat)
                for chat in self._chats.values()
                if chat.deleted_at is not None
                and stored_time(after) <= chat.deleted_at < stored_time(before)
            ),
            limit,
        )

    async def remove_tombstone(self, chat_id: str) -> None:
        """See `Store.remove_tombstone`."""
        self._reach()
        chat = self._chats.get(chat_id)
        if chat is not None and chat.deleted_at is not None:
            del self._chats[chat_id]

    def _keep(self, chat: Chat) -> Chat:
        self._chats[chat.id] = chat = replace(chat, revision=chat.revision + 1)
        return chat


def _earliest(found: Iterable[tuple[datetime, Chat]], limit: int) -> list[Chat]:
    ordered = sorted(found, key=lambda pair: (pair[0], pair[1].id))
    return [chat for _, chat in ordered[:limit]]
