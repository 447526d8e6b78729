"""A `Store` in memory, of its parts."""

from __future__ import annotations

from parley_session.store.memory.jobs import MemoryJobs
from parley_session.store.memory.messages import MemoryMessages
from parley_session.store.memory.runs import MemoryRuns


class MemoryStore(MemoryJobs, MemoryMessages, MemoryRuns):
    """Chats, messages, runs, invalidations, keys, usage and jobs of one process.

    `now` says which chats have expired in a list. While `away` is set, every
    method raises `StoreUnavailable` and changes nothing.
    """

    async def prepare(self) -> None:
        """Do nothing: there are no indexes."""
        self._reach()

    async def ping(self) -> None:
        """Return unless the store is away."""
        self._reach()

    async def close(self) -> None:
        """Do nothing: there are no connections."""
