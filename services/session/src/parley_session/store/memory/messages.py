"""Messages of a `MemoryStore`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from parley_session.domain.model import Message, Principal, Rating, Role, message_id
from parley_session.store.base import MAX_MESSAGES_READ
from parley_session.store.documents import messages as documents
from parley_session.store.memory.part import Part, owned


class MemoryMessages(Part):
    """The messages."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: dict[str, Message] = {}

    async def insert_message(self, message: Message) -> bool:
        """See `Store.insert_message`."""
        self._reach()
        if message.id in self._messages:
            return False
        self._messages[message.id] = documents.message_from(documents.message_to(message))
        return True

    async def get_messages(
        self, principal: Principal, chat_id: str, first_seq: int, last_seq: int
    ) -> Sequence[Message]:
        """See `Store.get_messages`."""
        self._reach()
        if last_seq - first_seq >= MAX_MESSAGES_READ:
            raise ValueError(f"at most {MAX_MESSAGES_READ} messages a call")
        found = (
            owned(principal, self._messages.get(message_id(chat_id, seq)))
            for seq in range(first_seq, last_seq + 1)
        )
        return [message for message in found if message is not None]

    async def get_message(self, principal: Principal, message_id: str) -> Message | None:
        """See `Store.get_message`."""
        self._reach()
        return owned(principal, self._messages.get(message_id))

    async def set_tokens(self, message_id: str, tokenizer_id: str, tokens: int) -> None:
        """See `Store.set_tokens`."""
        self._reach()
        message = self._messages.get(message_id)
        if message is not None:
            counts = {**message.tokens, tokenizer_id: tokens}
            self._messages[message_id] = replace(message, tokens=counts)

    async def rate_message(self, principal: Principal, message_id: str, rating: Rating) -> bool:
        """See `Store.rate_message`."""
        self._reach()
        message = owned(principal, self._messages.get(message_id))
        if message is None or message.role is not Role.ASSISTANT:
            return False
        flagged = rating is Rating.DOWN
        self._messages[message_id] = replace(message, rating=rating, flagged=flagged)
        return True

    async def flag_message(self, tenant: str, message_id: str) -> None:
        """See `Store.flag_message`."""
        self._reach()
        message = self._messages.get(message_id)
        if message is not None and message.tenant == tenant:
            self._messages[message_id] = replace(message, flagged=True)

    async def delete_messages(self, chat_id: str, next_seq: int) -> None:
        """See `Store.delete_messages`."""
        self._reach()
        for seq in range(next_seq):
            self._messages.pop(message_id(chat_id, seq), None)
