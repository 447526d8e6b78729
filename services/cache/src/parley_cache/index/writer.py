"""Additions and removals on their way into the index, in order and off the request."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

from parley_cache import metrics
from parley_cache.index.base import IndexUnavailable, Item, Place, VectorIndex
from parley_cache.store.base import Removed

_log = logging.getLogger(__name__)
_CALL_SECONDS = 10.0


class IndexWriter:
    """A bounded queue and the task that empties it into the index.

    A change that finds the queue full, or that fails, is dropped and counted: the
    index only nominates, and mends itself by comparing.

    Args:
        index: written to.
        max_waiting: changes that wait at most.
    """

    def __init__(self, index: VectorIndex, *, max_waiting: int = 4_096) -> None:
        self._index = index
        self._max_waiting = max_waiting
        self._waiting: deque[Item | Removed] = deque()
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="index-writer")

    async def stop(self) -> None:
        """Stop; what waits is lost, and found again when the index is rebuilt."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def settled(self) -> None:
        """Return when everything taken in so far was written or dropped."""
        await self._idle.wait()

    def add(self, item: Item) -> None:
        """Have an item added."""
        self._put([item])

    def forget(self, removed: Sequence[Removed]) -> None:
        """Have items removed; see `store.base.RemovalListener`."""
        self._put(removed)

    def _put(self, changes: Sequence[Item | Removed]) -> None:
        room = self._max_waiting - len(self._waiting)
        if len(changes) > room:
            metrics.INDEX_EVENTS.labels("write", "dropped").inc(len(changes) - room)
        self._waiting.extend(changes[:room])
        self._idle.clear()
        self._news.set()

    async def _run(self) -> NoReturn:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await self._write(self._waiting.popleft())
            self._idle.set()

    async def _write(self, change: Item | Removed) -> None:
        kind = "add" if isinstance(change, Item) else "remove"
        outcome = "written"
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                if isinstance(change, Item):
                    outcome = "written" if await self._index.add(change) else "refused"
                elif change.entry_id:
                    # Neighbours in the queue go together: an invalidation removes many.
                    await self._index.remove([_place(change), *self._next_removals()])
                else:
                    await self._index.drop(change.tenant)
        except (IndexUnavailable, TimeoutError):
            outcome = "failed"
        except Exception as error:  # noqa: BLE001 - one change must not end the writing
            _log.warning("the index failed", extra={"error": type(error).__name__})
            outcome = "failed"
        metrics.INDEX_EVENTS.labels(kind, outcome).inc()

    def _next_removals(self) -> list[Place]:
        places: list[Place] = []
        while self._waiting and len(places) < 255:
            change = self._waiting[0]
            if isinstance(change, Item) or not change.entry_id:
                break
            places.append(_place(change))
            self._waiting.popleft()
        return places


def _place(removed: Removed) -> Place:
    return Place(removed.tenant, removed.space, removed.entry_id)
