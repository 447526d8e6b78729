"""Messages of the `Store` on MongoDB."""

from __future__ import annotations

from collections.abc import Sequence

from parley_session.domain.model import Message, Principal, Rating, Role, message_id
from parley_session.store.base import MAX_MESSAGES_READ
from parley_session.store.documents import messages as documents
from parley_session.store.documents.fields import token_key
from parley_session.store.mongo.queries import Collections, delete, insert, owned
from parley_session.store.mongo.seam import operation


class MongoMessages(Collections):
    """The messages."""

    @operation
    async def insert_message(self, message: Message) -> bool:
        """See `Store.insert_message`."""
        return await insert(self._messages, documents.message_to(message))

    @operation
    async def get_messages(
        self, principal: Principal, chat_id: str, first_seq: int, last_seq: int
    ) -> Sequence[Message]:
        """See `Store.get_messages`."""
        if last_seq - first_seq >= MAX_MESSAGES_READ:
            raise ValueError(f"at most {MAX_MESSAGES_READ} messages a call")
        ids = [message_id(chat_id, seq) for seq in range(first_seq, last_seq + 1)]
        if not ids:
            return []
        # Found by id alone, which every server does with an index (docs/adr/0003); whose they
        # are is judged on the rows.
        found = self._messages.find(
            {"_id": {"$in": ids}}, documents.MESSAGE_FIELDS, batch_size=len(ids) + 1
        )
        mine = [
            documents.message_from(document)
            for document in await found.to_list(len(ids))
            if document["tenant"] == principal.tenant and principal.user in (None, document["user"])
        ]
        return sorted(mine, key=lambda message: message.seq)

    @operation
    async def get_message(self, principal: Principal, message_id: str) -> Message | None:
        """See `Store.get_message`."""
        document = await self._messages.find_one(
            owned(principal, message_id), documents.MESSAGE_FIELDS
        )
        return None if document is None else documents.message_from(document)

    @operation
    async def set_tokens(self, message_id: str, tokenizer_id: str, tokens: int) -> None:
        """See `Store.set_tokens`."""
        field = f"tokens.{token_key(tokenizer_id)}"
        await self._messages.update_one({"_id": message_id}, {"$set": {field: tokens}})

    @operation
    async def rate_message(self, principal: Principal, message_id: str, rating: Rating) -> bool:
        """See `Store.rate_message`."""
        result = await self._messages.update_one(
            owned(principal, message_id, role=Role.ASSISTANT.value),
            {"$set": {"rating": rating.value, "flagged": rating is Rating.DOWN}},
        )
        return result.matched_count == 1

    @operation
    async def flag_message(self, tenant: str, message_id: str) -> None:
        """See `Store.flag_message`."""
        await self._messages.update_one(
            {"_id": message_id, "tenant": tenant}, {"$set": {"flagged": True}}
        )

    @operation
    async def delete_messages(self, chat_id: str, next_seq: int) -> None:
        """See `Store.delete_messages`."""
        await delete(self._messages, [message_id(chat_id, seq) for seq in range(next_seq)])
