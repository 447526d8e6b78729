"""What one replica tidies for all: expired chats, tombstones, invalidations, old keys.

Each works until nothing is left or its deadline comes, batch after batch, in steps that
may be repeated: two replicas at once only do some of them twice. A batch with something in
it that the one before had disposed of is the last: the store does not do what it accepts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

from parley_session import metrics
from parley_session.answers.base import AnswerCache
from parley_session.clock import Clock
from parley_session.domain.model import Chat, Principal
from parley_session.jobs.base import MOST_COUNTED, Job, Unfinished
from parley_session.runs.deleting import Deleter
from parley_session.runs.keys import reapable_before
from parley_session.store.base import Backlog, Store

# What is read at a time.
BATCH = 200
# Ages, in seconds, at which a tombstone is cleaned again.
CLEANED_AT_AGES = (60.0, 600.0, 3600.0, 6 * 3600.0)

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Housekeeping:
    """Tidies. `tombstone_seconds` exceeds a key's life and the longest deadline."""

    def __init__(
        self,
        *,
        store: Store,
        cache: AnswerCache,
        deleter: Deleter,
        clock: Clock,
        tombstone_seconds: float,
    ) -> None:
        self._store = store
        self._cache = cache
        self._deleter = deleter
        self._clock = clock
        self._tombstone = timedelta(seconds=tombstone_seconds)

    def jobs(self, period: float, deadline: float) -> list[Job]:
        """The jobs of housekeeping, each to be done once a period by one replica."""
        return [
            Job("expire_chats", period, deadline, self.expire_chats, self._expired_chats),
            Job("clean_tombstones", period, deadline, self.clean_tombstones, self._tombstones),
            Job("send_invalidations", period, deadline, self.send_invalidations, self._unconfirmed),
            Job("reap_keys", period, deadline, self.reap_keys, self._old_keys),
        ]

    async def expire_chats(self, _: datetime | None) -> None:
        """Delete chats past their expiry. Raises Unfinished."""
        done: set[str] = set()
        while True:
            chats = await self._store.list_expired_chats(self._clock.now(), BATCH)
            done = _progress(done, [chat.id for chat in chats])
            for chat in chats:
                await self._deleter.delete(Principal(chat.tenant, chat.user), chat.id)
                metrics.JOB_ITEMS.labels("expire_chats", "chat").inc()
            if len(chats) < BATCH:
                return

    async def clean_tombstones(self, since: datetime | None) -> None:
        """Clean the tombstones that came to certain ages since then; remove those that ended."""
        now = self._clock.now()
        for age in map(_seconds, CLEANED_AT_AGES):
            after = _LONG_AGO if since is None else since - age
            async for chat in self._deleted(after, now - age):
                await self._deleter.clean(chat)
                metrics.JOB_ITEMS.labels("clean_tombstones", "cleaned").inc()
        async for chat in self._deleted(_LONG_AGO, now - self._tombstone):
            await self._deleter.clean(chat)
            await self._store.remove_tombstone(chat.id)
            metrics.JOB_ITEMS.labels("clean_tombstones", "removed").inc()

    async def send_invalidations(self, _: datetime | None) -> None:
        """Repeat invalidations until the cache has confirmed them. Raises Unfinished."""
        done: set[str] = set()
        while True:
            invalidations = await self._store.list_invalidations(BATCH)
            done = _progress(done, [invalidation.id for invalidation in invalidations])
            for invalidation in invalidations:
                if not await self._cache.invalidate(invalidation):
                    raise Unfinished("the cache does not confirm")
                await self._store.confirm_invalidation(invalidation.id)
                metrics.JOB_ITEMS.labels("send_invalidations", "invalidation").inc()
            if len(invalidations) < BATCH:
                return

    async def reap_keys(self, _: datetime | None) -> None:
        """Remove the records of idempotency keys that have expired."""
        while True:
            before = reapable_before(self._clock)
            reaped = await self._store.delete_expired_keys(before, BATCH)
            metrics.JOB_ITEMS.labels("reap_keys", "key").inc(reaped)
            if reaped < BATCH:
                return

    async def _deleted(self, after: datetime, before: datetime) -> AsyncIterator[Chat]:
        """Read the tombstones of that time, batch by batch."""
        while True:
            chats = await self._store.list_tombstones(after, before, BATCH)
            for chat in chats:
                yield chat
            if len(chats) < BATCH or chats[-1].deleted_at is None:
                return
            # The last one's moment again: it may be that of others. Unless that is all there is.
            after = max(chats[-1].deleted_at, after + _MILLISECOND)

    async def _expired_chats(self) -> int:
        return await self._count(Backlog.EXPIRED_CHATS, self._clock.now())

    async def _tombstones(self) -> int:
        return await self._count(Backlog.TOMBSTONES, self._clock.now() - self._tombstone)

    async def _unconfirmed(self) -> int:
        return await self._count(Backlog.INVALIDATIONS, self._clock.now())

    async def _old_keys(self) -> int:
        return await self._count(Backlog.KEYS, reapable_before(self._clock))

    async def _count(self, backlog: Backlog, before: datetime) -> int:
        return await self._store.count_backlog(backlog, before, MOST_COUNTED)


def _progress(done: set[str], ids: Sequence[str]) -> set[str]:
    """Return the ids of a batch. Raises Unfinished if the one before had some of them."""
    if not done.isdisjoint(ids):
        raise Unfinished("what was disposed of is still there")
    return set(ids)


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
