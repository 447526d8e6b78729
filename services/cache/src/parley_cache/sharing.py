"""When a user may be given an answer that another's question made.

Only in global scope, only once enough different users asked the question (so that what
is served is common, and one person's phrase betrays nobody), and never an answer of a
user one of whose shared answers was rated down.
"""

from __future__ import annotations

from parley_cache.guard import StoreGuard
from parley_cache.keys import EntryKey, user_name
from parley_cache.model import Entry
from parley_cache.store.base import CacheStore, StoreError

TOO_FEW = "too_few_askers"
FLAGGED = "user_flagged"


class Sharing:
    """Decides about entries of global scope.

    Args:
        store: remembers who asked.
        guard: bounds each call.
        least_askers: different users, the one who asks among them.
    """

    def __init__(self, store: CacheStore, guard: StoreGuard, least_askers: int) -> None:
        self._store = store
        self._guard = guard
        self._least = least_askers

    async def refuse(self, tenant: str, user: str, entry: Entry, *, seconds: float) -> str:
        """Say why `user` is not given the entry; empty: they are.

        Args:
            tenant: a `keys.tenant_name`.
            user: who asks.
            entry: of global scope.
            seconds: longest decision.
        """
        asker = user_name(user)
        if entry.shared_by == asker:
            return ""
        try:
            async with self._guard.operation("sharing", seconds):
                if await self._store.is_flagged(tenant, entry.shared_by):
                    return FLAGGED
                key = EntryKey(tenant, entry.entry_id, entry.check)
                askers = await self._store.note_asker(key, asker)
        except StoreError:
            return "store_unavailable"
        return "" if askers >= self._least else TOO_FEW

    async def note(self, key: EntryKey, user: str, *, seconds: float) -> None:
        """Count one who asked, where there was no answer yet."""
        try:
            async with self._guard.operation("sharing", seconds):
                await self._store.note_asker(key, user_name(user))
        except StoreError:
            # One asker fewer: sharing begins a little later.
            return

    async def refuse_source(self, tenant: str, user: str, *, seconds: float) -> str:
        """Say why a user's answer is not taken in for others; empty: it is."""
        try:
            async with self._guard.operation("sharing", seconds):
                flagged = await self._store.is_flagged(tenant, user_name(user))
        except StoreError:
            return "store_unavailable"
        return FLAGGED if flagged else ""
