"""Chats and their messages, apart from what makes answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parley_kit.ids import uuid7
from parley_session.answers.base import AnswerCache
from parley_session.clock import Clock
from parley_session.domain import bounds, errors
from parley_session.domain.model import (
    Chat,
    ChatListing,
    IdempotencyRecord,
    Invalidation,
    Message,
    Principal,
    Rating,
    message_id,
)
from parley_session.fleet.base import Fleet
from parley_session.runs.asking import NewChat, find_chat, new_chat
from parley_session.runs.keys import Keys, KeyTaken, RequestKey
from parley_session.store.base import MAX_PENDING, ListCursor, Store
from parley_session.usage import usage_of_empty_chat

# Messages of turns that are pending and may be missing below `nextSeq`.
_NOT_YET = 2 * MAX_PENDING
# Messages of one read of a page.
_MESSAGES_AT_ONCE = 72


@dataclass(frozen=True, slots=True)
class ChatPage:
    """A chat with some of its messages, oldest first."""

    chat: Chat
    messages: Sequence[Message]
    has_more: bool


@dataclass(frozen=True, slots=True)
class ListPage:
    """Some of a user's chats, latest update first. `after`: where the next page begins."""

    chats: Sequence[ChatListing]
    after: ListCursor | None


class Chats:
    """Creates, reads, renames and rates. Raises `not_found` for what is not the caller's."""

    def __init__(
        self, store: Store, fleet: Fleet, cache: AnswerCache, keys: Keys, clock: Clock
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._cache = cache
        self._keys = keys
        self._clock = clock

    async def create(
        self, principal: Principal, chat_id: str, new: NewChat, key: RequestKey | None = None
    ) -> tuple[Chat, bool]:
        """Insert an empty chat; with the same id, or the same key, it is the same chat.

        Tells also whether another request with the key made it.
        """
        user = named(principal)
        if key is None:
            return (await self._insert(principal, user, chat_id, new))[0], False
        proposed = self._keys.propose(principal.tenant, user, key, chat=chat_id, run="")
        kept = await self._keys.find(proposed)
        if kept is None:
            try:
                return await self._insert(principal, user, chat_id, new, proposed)
            except KeyTaken as taken:
                kept = taken.record
        if await self._store.get_chat(principal, kept.chat) is not None:
            return await self.find(principal, kept.chat), kept.chat != chat_id
        return await self._insert(principal, user, kept.chat, new)

    async def _insert(
        self,
        principal: Principal,
        user: str,
        chat_id: str,
        new: NewChat,
        key: IdempotencyRecord | None = None,
    ) -> tuple[Chat, bool]:
        model = await self._fleet.find(new.model, principal.tenant)
        chat = new_chat(chat_id, principal.tenant, user, new, model.id, self._clock.now())
        if key is not None:
            await self._keys.claim(key)
        is_new = await self._store.insert_chat(chat)
        if not is_new:
            chat = await self.find(principal, chat_id)
        await self._store.insert_usage(usage_of_empty_chat(chat))
        return chat, not is_new

    async def find(self, principal: Principal, chat_id: str) -> Chat:
        """Read a chat."""
        return await find_chat(self._store, self._clock, principal, chat_id)

    async def list(self, principal: Principal, limit: int, after: ListCursor | None) -> ListPage:
        """Read a page of the user's chats."""
        named(principal)
        found = await self._store.list_chats(principal, limit + 1, after)
        page = found[:limit]
        last = page[-1] if len(found) > limit else None
        return ListPage(page, ListCursor(last.updated_at, last.id) if last else None)

    async def read(
        self, principal: Principal, chat_id: str, limit: int, before: int | None
    ) -> ChatPage:
        """Read a chat and the newest `limit` messages, of those numbered below `before`."""
        chat = await self.find(principal, chat_id)
        end = chat.next_seq if before is None else min(before, chat.next_seq)
        if limit == 0 or end == 0:
            return ChatPage(chat, (), has_more=end > 0)
        messages = await self._newest(chat, limit, end)
        return ChatPage(chat, messages, has_more=bool(messages) and messages[0].seq > 0)

    async def _newest(self, chat: Chat, limit: int, end: int) -> Sequence[Message]:
        """Read at most `limit` messages numbered below `end`, as many as a page may hold.

        In parts: what does not fit is not read, but for the rest of one part.
        """
        owner = Principal(chat.tenant, chat.user)
        newest: list[Message] = []
        room = bounds.MAX_PAGE_BYTES
        while end > 0 and len(newest) < limit:
            first = max(0, end - min(limit - len(newest) + _NOT_YET, _MESSAGES_AT_ONCE))
            part = await self._store.get_messages(owner, chat.id, first, end - 1)
            for message in reversed(part):
                room -= len(message.content.encode())
                if len(newest) == limit or (room < 0 and newest):
                    return newest[::-1]
                newest.append(message)
            end = first
        return newest[::-1]

    async def rename(self, principal: Principal, chat_id: str, title: str) -> Chat:
        """Change a chat's title."""
        await self.find(principal, chat_id)
        chat = await self._store.set_title(principal, chat_id, title)
        if chat is None:
            raise errors.not_found("chat")
        return chat

    async def rate(self, principal: Principal, chat_id: str, seq: int, rating: Rating) -> None:
        """Store a rating; "down" takes the answer, and what it was copied from, out of use.

        A flagged message is served to nobody from this moment on, whatever the cache
        still holds; the cache is told as well.
        """
        chat = await self.find(principal, chat_id)
        rated = message_id(chat_id, seq)
        if not await self._store.rate_message(principal, rated, rating):
            raise errors.not_found("message")
        if rating is not Rating.DOWN:
            return
        message = await self._store.get_message(principal, rated)
        if message is not None and message.source is not None:
            await self._store.flag_message(chat.tenant, message.source)
            source_chat = message.source.rpartition("-")[0]
            await self._invalidate(chat.tenant, source_chat, message.source)
        await self._invalidate(chat.tenant, chat_id, rated)

    async def _invalidate(self, tenant: str, chat_id: str, message: str) -> None:
        """Write down what the cache must forget, then tell it; the sweeper asks again."""
        invalidation = Invalidation(
            id=uuid7(),
            tenant=tenant,
            chat=chat_id,
            message=message,
            created_at=self._clock.now(),
        )
        await self._store.insert_invalidation(invalidation)
        if await self._cache.invalidate(invalidation):
            await self._store.confirm_invalidation(invalidation.id)


def named(principal: Principal) -> str:
    """Return the user who asks. Raises `unauthenticated` where a call must name one."""
    if principal.user is None:
        raise errors.unauthenticated("this call must name a user")
    return principal.user
