"""A `Store` in memory: for tests, and the reference of what the contract means.

Every method runs without awaiting, so each is one atomic operation on the loop.
What is kept goes through the document mapping once, so that it has the precision
and the shape of what a server would give back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from parley_session.domain.model import (
    Chat,
    ChatListing,
    FrozenPrompt,
    Invalidation,
    Message,
    Outcome,
    Principal,
    Rating,
    Role,
    Run,
    RunState,
    Summary,
    Turn,
    message_id,
)
from parley_session.store import documents
from parley_session.store.base import (
    MAX_MESSAGES_READ,
    MAX_RUNS_READ,
    Beat,
    ListCursor,
    StoreUnavailable,
    stripped,
)
from parley_session.store.memory_records import MemoryRecords

_Owned = TypeVar("_Owned", Chat, Message, Run)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryStore(MemoryRecords):
    """Chats, messages, runs, invalidations, keys and usage of one process.

    `now` says which chats have expired in a list. While `away` is set, every
    method raises `StoreUnavailable` and changes nothing.
    """

    def __init__(self, now: Callable[[], datetime] = _utc_now) -> None:
        super().__init__()
        self._now = now
        self.away = False
        self._chats: dict[str, Chat] = {}
        self._messages: dict[str, Message] = {}
        self._runs: dict[str, Run] = {}
        self._invalidations: dict[str, Invalidation] = {}

    async def prepare(self) -> None:
        """Do nothing: there are no indexes."""
        self._reach()

    async def ping(self) -> None:
        """Return unless the store is away."""
        self._reach()

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    # chats ------------------------------------------------------------------

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
        return self._own(principal, self._chats.get(chat_id))

    async def accept_turn(self, principal: Principal, chat: Chat, turn: Turn, limit: int) -> bool:
        """See `Store.accept_turn`."""
        self._reach()
        kept = self._own(principal, self._chats.get(chat.id))
        if (
            len(chat.pending) >= limit
            or kept is None
            or kept.user != chat.user
            or kept.deleted_at is not None
            or kept.next_seq != chat.next_seq
        ):
            return False
        turn = documents.turn_from(documents.turn_to(turn))
        self._chats[chat.id] = replace(
            kept,
            pending=(*kept.pending, turn),
            next_seq=kept.next_seq + 2,
            updated_at=turn.accepted_at,
        )
        return True

    async def settle_turn(
        self, chat_id: str, run_id: str, *, messages: int, title: str | None, at: datetime
    ) -> bool:
        """See `Store.settle_turn`."""
        self._reach()
        chat = self._chats.get(chat_id)
        if chat is None or not chat.pending or chat.pending[0].run != run_id:
            return False
        live = chat.deleted_at is None
        self._chats[chat_id] = replace(
            chat,
            pending=chat.pending[1:],
            message_count=chat.message_count + messages,
            updated_at=documents.stored_time(at),
            title=title if title and not chat.title and live else chat.title,
        )
        return True

    async def list_chats(
        self, principal: Principal, limit: int, after: ListCursor | None
    ) -> Sequence[ChatListing]:
        """See `Store.list_chats`."""
        self._reach()
        if principal.user is None or limit < 1:
            raise ValueError("a list of chats needs a user and a limit")
        now = documents.stored_time(self._now())
        found = [
            chat
            for chat in self._chats.values()
            if (chat.tenant, chat.user) == (principal.tenant, principal.user)
            and chat.deleted_at is None
            and (chat.expires_at is None or chat.expires_at > now)
            and (
                after is None
                or (chat.updated_at, chat.id)
                < (documents.stored_time(after.updated_at), after.chat_id)
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
        self._chats[chat_id] = replace(chat, summary=summary)
        return True

    async def set_title(self, principal: Principal, chat_id: str, title: str) -> Chat | None:
        """See `Store.set_title`."""
        self._reach()
        chat = self._own(principal, self._chats.get(chat_id))
        if chat is None or chat.deleted_at is not None:
            return None
        self._chats[chat_id] = chat = replace(chat, title=title)
        return chat

    async def mark_deleted(self, principal: Principal, chat_id: str, at: datetime) -> Chat | None:
        """See `Store.mark_deleted`."""
        self._reach()
        chat = self._own(principal, self._chats.get(chat_id))
        if chat is not None and chat.deleted_at is None:
            self._chats[chat_id] = chat = replace(chat, deleted_at=documents.stored_time(at))
        return chat

    async def strip_chat(self, chat_id: str) -> None:
        """See `Store.strip_chat`."""
        self._reach()
        chat = self._chats.get(chat_id)
        if chat is not None and chat.deleted_at is not None:
            self._chats[chat_id] = stripped(chat)

    # messages ---------------------------------------------------------------

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
            self._own(principal, self._messages.get(message_id(chat_id, seq)))
            for seq in range(first_seq, last_seq + 1)
        )
        return [message for message in found if message is not None]

    async def get_message(self, principal: Principal, message_id: str) -> Message | None:
        """See `Store.get_message`."""
        self._reach()
        return self._own(principal, self._messages.get(message_id))

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
        message = self._own(principal, self._messages.get(message_id))
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

    # runs -------------------------------------------------------------------

    async def insert_run(self, run: Run) -> bool:
        """See `Store.insert_run`."""
        self._reach()
        if run.id in self._runs:
            return False
        self._runs[run.id] = documents.run_from(documents.run_to(run))
        return True

    async def get_run(self, principal: Principal, run_id: str) -> Run | None:
        """See `Store.get_run`."""
        self._reach()
        return self._own(principal, self._runs.get(run_id))

    async def hold_run(self, run_id: str, attempt: int, holder: str, faults: int = 0) -> Run | None:
        """See `Store.hold_run`."""
        self._reach()
        run = self._unfinished(run_id, attempt)
        if run is None:
            return None
        self._runs[run_id] = run = replace(
            run, attempt=attempt + 1, holder=holder, faults=faults, state=RunState.RUNNING
        )
        return run

    async def move_beat(self, run_id: str, attempt: int) -> Beat | None:
        """See `Store.move_beat`."""
        self._reach()
        run = self._held(run_id, attempt)
        if run is None:
            return None
        self._runs[run_id] = replace(run, beat=run.beat + 1)
        return Beat(run.cancel_requested)

    async def hand_over(self, run_id: str, attempt: int) -> bool:
        """See `Store.hand_over`."""
        self._reach()
        run = self._held(run_id, attempt)
        if run is None:
            return False
        self._runs[run_id] = replace(run, handed_over=attempt)
        return True

    async def freeze_prompt(self, run_id: str, attempt: int, prompt: FrozenPrompt) -> bool:
        """See `Store.freeze_prompt`."""
        self._reach()
        run = self._held(run_id, attempt)
        if run is None or run.prompt is not None:
            return False
        self._runs[run_id] = replace(run, prompt=prompt)
        return True

    async def start_run(self, run_id: str, attempt: int, log: str | None, at: datetime) -> bool:
        """See `Store.start_run`."""
        self._reach()
        run = self._held(run_id, attempt)
        if run is None:
            return False
        started = run.started_at or documents.stored_time(at)
        self._runs[run_id] = replace(run, log=log, started_at=started)
        return True

    async def clear_log(self, run_id: str, attempt: int) -> bool:
        """See `Store.clear_log`."""
        self._reach()
        run = self._held(run_id, attempt)
        if run is None:
            return False
        self._runs[run_id] = replace(run, log=None)
        return True

    async def commit_run(self, run_id: str, attempt: int, outcome: Outcome) -> bool:
        """See `Store.commit_run`."""
        self._reach()
        run = self._unfinished(run_id, attempt)
        if run is None:
            return False
        self._runs[run_id] = replace(
            run,
            state=outcome.state,
            content=outcome.content,
            finish_reason=outcome.finish_reason,
            finished_at=documents.stored_time(outcome.finished_at),
            usage=outcome.usage,
            timings=outcome.timings,
            cache=outcome.cache,
            context=outcome.context,
            source=outcome.source,
            error=outcome.error,
        )
        return True

    async def request_cancel(self, principal: Principal, run_id: str) -> Run | None:
        """See `Store.request_cancel`."""
        self._reach()
        run = self._own(principal, self._runs.get(run_id))
        if run is not None and not run.state.final:
            self._runs[run_id] = run = replace(run, cancel_requested=True)
        return run

    async def list_run_ids(self, chat_id: str) -> Sequence[str]:
        """See `Store.list_run_ids`."""
        self._reach()
        found = [run.id for run in self._runs.values() if run.chat == chat_id]
        return found[:MAX_RUNS_READ]

    async def fence_runs(self, run_ids: Sequence[str]) -> Sequence[str]:
        """See `Store.fence_runs`."""
        self._reach()
        logs: list[str] = []
        for run_id in set(run_ids):
            run = self._runs.get(run_id)
            if run is not None:
                self._runs[run_id] = replace(run, attempt=run.attempt + 1)
                logs += [run.log] if run.log is not None else []
        return logs

    async def delete_runs(self, run_ids: Sequence[str]) -> None:
        """See `Store.delete_runs`."""
        self._reach()
        for run_id in run_ids:
            self._runs.pop(run_id, None)

    # invalidations ----------------------------------------------------------

    async def insert_invalidation(self, invalidation: Invalidation) -> bool:
        """See `Store.insert_invalidation`."""
        self._reach()
        if invalidation.id in self._invalidations:
            return False
        document = documents.invalidation_to(invalidation)
        self._invalidations[invalidation.id] = documents.invalidation_from(document)
        return True

    async def list_invalidations(self, limit: int) -> Sequence[Invalidation]:
        """See `Store.list_invalidations`."""
        self._reach()
        return sorted(self._invalidations.values(), key=lambda i: (i.created_at, i.id))[:limit]

    async def confirm_invalidation(self, invalidation_id: str) -> None:
        """See `Store.confirm_invalidation`."""
        self._reach()
        self._invalidations.pop(invalidation_id, None)

    # sweeping ---------------------------------------------------------------

    async def list_busy_chats(self, before: datetime, limit: int) -> Sequence[Chat]:
        """See `Store.list_busy_chats`."""
        self._reach()
        return _earliest(
            (
                (chat.pending[0].accepted_at, chat)
                for chat in self._chats.values()
                if chat.pending
                and chat.deleted_at is None
                and chat.pending[0].accepted_at < documents.stored_time(before)
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
                and chat.expires_at <= documents.stored_time(at)
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
                and documents.stored_time(after) <= chat.deleted_at < documents.stored_time(before)
            ),
            limit,
        )

    async def remove_tombstone(self, chat_id: str) -> None:
        """See `Store.remove_tombstone`."""
        self._reach()
        chat = self._chats.get(chat_id)
        if chat is not None and chat.deleted_at is not None:
            del self._chats[chat_id]

    # conditions ---------------------------------------------------------------

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")

    @staticmethod
    def _own(principal: Principal, kept: _Owned | None) -> _Owned | None:
        if kept is None or kept.tenant != principal.tenant:
            return None
        return kept if principal.user in (None, kept.user) else None

    def _unfinished(self, run_id: str, attempt: int) -> Run | None:
        run = self._runs.get(run_id)
        return None if run is None or run.state.final or run.attempt != attempt else run

    def _held(self, run_id: str, attempt: int) -> Run | None:
        return self._unfinished(run_id, attempt) if attempt > 0 else None


def _earliest(found: Iterable[tuple[datetime, Chat]], limit: int) -> list[Chat]:
    ordered = sorted(found, key=lambda pair: (pair[0], pair[1].id))
    return [chat for _, chat in ordered[:limit]]
