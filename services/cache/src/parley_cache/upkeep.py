"""The background task that sweeps the store and reports what it holds."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import NoReturn

from parley_cache import metrics
from parley_cache.cache import AnswerCache
from parley_cache.guard import StoreGuard
from parley_cache.store.base import CacheStore, StoreError, Swept

_log = logging.getLogger(__name__)
_ROUND_SECONDS = 30.0
"""Longest round; what it leaves undone, the next one does."""


class Upkeep:
    """Sweeps every so often, and knows whether the store was ever reached.

    Args:
        cache: whose hits are credited; None: nobody's.
        store: to sweep.
        guard: bounds each round; its successes close the breaker.
        seconds: between two rounds, give or take a tenth.
    """

    def __init__(
        self,
        store: CacheStore,
        guard: StoreGuard,
        seconds: float,
        cache: AnswerCache | None = None,
    ) -> None:
        self._cache = cache
        self._store = store
        self._guard = guard
        self._seconds = seconds
        self._up: bool | None = None
        self.reached = asyncio.Event()

    async def run(self) -> NoReturn:
        """Sweep until cancelled."""
        while True:
            if self._cache is not None:
                await self._cache.credit(seconds=_ROUND_SECONDS)
            await self.round()
            spread = random.uniform(0.9, 1.1)  # noqa: S311 - not a secret
            await asyncio.sleep(self._seconds * spread)

    async def round(self) -> Swept | None:
        """Do one round; None when the store is away."""
        try:
            async with self._guard.operation("sweep", _ROUND_SECONDS, always=True):
                swept = await self._store.sweep()
        except StoreError as exc:
            self._note(up=False, why=str(exc))
            return None
        self._note(up=True)
        self.reached.set()
        metrics.ENTRIES.set(swept.totals.entries)
        metrics.BYTES.set(swept.totals.bytes)
        metrics.TENANTS.set(swept.tenants)
        metrics.EXPIRED_ENTRIES.inc(swept.expired)
        metrics.EVICTED_ENTRIES.inc(swept.evicted)
        return swept

    def _note(self, *, up: bool, why: str = "") -> None:
        if up == self._up:
            return
        self._up = up
        if up:
            _log.info("the store answers")
        else:
            _log.warning("the store is away; look-ups are misses", extra={"why": why})
