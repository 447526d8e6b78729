"""What remains of a run once it is committed.

In this order: the assistant's message and its usage (between which there is none), the
cache, the turn off `pending` (the next one is started), the last event. Each step is
repeatable, so whoever meets a committed run may do all of them; a client that acts on
`done` finds everything in place.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from parley_kit.ids import uuid7
from parley_session.clock import Clock
from parley_session.domain.model import (
    Chat,
    Invalidation,
    Message,
    Principal,
    Role,
    Run,
)
from parley_session.domain.titles import title_from
from parley_session.runs.live import Ended
from parley_session.runs.log import (
    LogEntry,
    LogFenced,
    LogMissing,
    LogUnavailable,
    RunLog,
)
from parley_session.runs.together import together
from parley_session.store.base import Store
from parley_session.usage import usage_of_run

_log = logging.getLogger(__name__)

# Question and answer.
MESSAGES_PER_TURN = 2
# The last event's number: greater than any entry's, so that appended twice it is there once.
LAST_ENTRY = 2**31 - 1


class Finisher:
    """Finishes committed runs. Raises StoreUnavailable: ask again."""

    def __init__(self, store: Store, log: RunLog, clock: Clock) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._advance: Callable[[Chat], Awaitable[object]] | None = None

    def then(self, advance: Callable[[Chat], Awaitable[object]]) -> None:
        """Set what starts the next turn of a chat whose first one was settled."""
        self._advance = advance

    async def finish(
        self,
        run: Run,
        *,
        fill_cache: Callable[[], Awaitable[None]] | None = None,
        known: Chat | None = None,
    ) -> Ended | None:
        """Do what remains of a committed run. None: its chat is deleted.

        `fill_cache` offers the answer to the cache; only the holder has what that takes,
        and an answer that is not offered is merely made again. `known`: the chat as its
        acceptor left it.
        """
        await together(
            self._store.insert_message(_answer_of(run)),
            self._store.insert_usage(usage_of_run(run)),
        )
        if fill_cache is not None:
            await fill_cache()
        chat = await self._store.settle_turn(
            run.chat,
            run.id,
            messages=MESSAGES_PER_TURN,
            # A chat without a title gets one from its first message.
            title=title_from if run.seq == 0 else None,
            at=run.finished_at or self._clock.now(),
            known=known,
        )
        if chat is None:
            # Somebody else took the turn off.
            chat = await self._store.get_chat(Principal(run.tenant, run.user), run.chat)
        if chat is None or chat.deleted_at is not None:
            await self._take_back(run)
            return None
        if self._advance is not None and chat.pending and chat.pending[0].run != run.id:
            await self._advance(chat)
        await self._append_last_event(run)
        return Ended(run, chat)

    async def finish_if_pending(self, run: Run, chat: Chat) -> Ended:
        """Finish a committed run if its turn is still in its chat, else tell how it ended."""
        if any(turn.run == run.id for turn in chat.pending):
            return await self.finish(run) or Ended(run, chat)
        return Ended(run, chat)

    async def _take_back(self, run: Run) -> None:
        """Leave nothing in a chat that was deleted while its answer was finished.

        The sweeper would see to it as well; this shortens the time.
        """
        await self._store.insert_invalidation(
            Invalidation(
                id=uuid7(),
                tenant=run.tenant,
                chat=run.chat,
                message=None,
                created_at=self._clock.now(),
            )
        )
        await self._store.delete_messages(run.chat, run.seq + MESSAGES_PER_TURN)
        if run.log is not None:
            try:
                await self._log.delete(run.log)
            except LogUnavailable:
                _log.warning("a deleted chat's log is left to expire")
        await self._store.delete_runs([run.id])

    async def _append_last_event(self, run: Run) -> None:
        if run.log is None:
            return
        entry = LogEntry(
            attempt=run.attempt,
            number=LAST_ENTRY,
            offset=len(run.content.encode()),
            last=True,
        )
        try:
            await self._log.append(run.log, entry)
        except LogFenced:
            _log.debug("the last event is there already", extra={"run": run.id})
        except (LogMissing, LogUnavailable):
            # No reader waits on the log alone: they find the end in the store.
            _log.info("the last event could not be logged", extra={"run": run.id})


def _answer_of(run: Run) -> Message:
    """Make the assistant's message of a committed run; one that never began has no text."""
    return Message(
        chat=run.chat,
        tenant=run.tenant,
        user=run.user,
        seq=run.seq + 1,
        role=Role.ASSISTANT,
        content=run.content,
        created_at=run.finished_at or run.created_at,
        run=run.id,
        finish_reason=run.finish_reason,
        source=run.source,
    )
