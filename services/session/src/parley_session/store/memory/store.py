"""A `Store` in memory, of its parts."""

from __future__ import annotations

from parley_session.store.memory.chats import MemoryChats
from parley_session.store.memory.messages import MemoryMessages
from parley_session.store.memory.records import MemoryRecords
from parley_session.store.memory.runs import MemoryRuns


class MemoryStore(MemoryChats, MemoryMessages, MemoryRuns, MemoryRecords):
    """Chats, messages, runs, invalidations, keys and usage of one process.

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
