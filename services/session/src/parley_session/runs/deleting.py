"""Deleting a chat, in an order that leaves nothing behind whoever stops half-way.

`deletedAt` first (from then on the chat is absent), then the attempts of its runs are
raised and an invalidation is written, then messages, logs and runs go, logs before
the runs that name them. A stripped tombstone stays: whoever slept through all of it
finds it and stops, and sweepers clean it again and again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from parley_kit.ids import uuid7
from parley_session.answers.base import AnswerCache
from parley_session.clock import Clock
from parley_session.domain.model import Chat, Invalidation, Principal
from parley_session.runs.log import LogUnavailable, RunLog
from parley_session.runs.registry import LiveRuns
from parley_session.runs.signal import Stop
from parley_session.store.base import Store, StoreUnavailable

_log = logging.getLogger(__name__)

# How often a removed run may be there again: a request that was paused may insert its run
# after the removal, and then meets the tombstone.
MOST_RETURNS = 3


class Deleter:
    """Deletes chats. Raises StoreUnavailable: ask again, or leave it to the sweeper."""

    def __init__(
        self,
        *,
        store: Store,
        log: RunLog,
        cache: AnswerCache,
        live_runs: LiveRuns,
        clock: Clock,
    ) -> None:
        self._store = store
        self._log = log
        self._cache = cache
        self._live_runs = live_runs
        self._clock = clock

    async def delete(self, principal: Principal, chat_id: str) -> bool:
        """Delete a chat and all that it said. False: there is none, or no more.

        One that is deleted already is cleaned again: its first deletion may have stopped
        half-way, and the caller who asks again is told the truth.
        """
        now = self._clock.now()
        chat = await self._store.mark_deleted(principal, chat_id, now)
        if chat is None:
            return False
        await self.clean(chat)
        return chat.deleted_at == now

    async def clean(self, chat: Chat) -> None:
        """Remove what a deleted chat has left; repeatable.

        Raises StoreUnavailable also where runs that were removed are there again and again.
        """
        run_ids = await self._run_ids(chat)
        removed: set[str] = set()
        returns = 0
        while True:
            logs = await self._fence(run_ids)
            await self._invalidate(chat)
            await self._store.delete_messages(chat.id, chat.next_seq)
            await self._delete_logs(logs)
            await self._store.delete_runs(run_ids)
            removed.update(run_ids)
            run_ids = await self._store.list_run_ids(chat.id)
            if not run_ids:
                break
            if not removed.isdisjoint(run_ids):
                returns += 1
            if returns > MOST_RETURNS:
                raise StoreUnavailable("runs that were removed are still there")
        await self._store.strip_chat(chat.id)

    async def _run_ids(self, chat: Chat) -> Sequence[str]:
        stored = await self._store.list_run_ids(chat.id)
        return list({*stored, *(turn.run for turn in chat.pending)})

    async def _fence(self, run_ids: Sequence[str]) -> Sequence[str]:
        if not run_ids:
            return ()
        logs = await self._store.fence_runs(run_ids)
        for run_id in run_ids:
            self._live_runs.stop(run_id, Stop.DELETED)
        return logs

    async def _invalidate(self, chat: Chat) -> None:
        """Write down what the cache must forget, then tell it; the sweeper asks again."""
        invalidation = Invalidation(
            id=uuid7(),
            tenant=chat.tenant,
            chat=chat.id,
            message=None,
            created_at=self._clock.now(),
        )
        await self._store.insert_invalidation(invalidation)
        if await self._cache.invalidate(invalidation):
            await self._store.confirm_invalidation(invalidation.id)

    async def _delete_logs(self, logs: Sequence[str]) -> None:
        for stream in logs:
            try:
                await self._log.delete(stream)
            except LogUnavailable:
                # It expires by itself, and no reader finds it without its run.
                _log.warning("a deleted chat's log is left to expire")
                return
