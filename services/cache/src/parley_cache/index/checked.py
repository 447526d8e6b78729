"""An index that proves itself, and what stands in for it when it does not.

A canary is written and sought at the start and every so often: an index that does not
find what it was just given answers nothing useful. Then the next one takes its place,
and where there is none, look-ups go on without the semantic tier. Each change is
counted. One that failed is tried again at every round.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

import numpy as np

from parley_cache import metrics
from parley_cache.index.base import (
    CANARY,
    IndexUnavailable,
    Item,
    Nominee,
    Place,
    Vector,
    VectorIndex,
)

_log = logging.getLogger(__name__)
_CANARY_SECONDS = 5.0


Starting = Callable[[], Awaitable[None]]
"""Readies an index for use; raises IndexUnavailable."""


class CheckedIndex:
    """A `VectorIndex`: the first of several that finds its canary.

    Args:
        choices: by name, the preferred first, each with what readies it.
        dimensions: of every vector.
        replica: names the canary, so that replicas do not take each other's away.
        seconds: between two rounds.
    """

    def __init__(
        self,
        choices: Sequence[tuple[str, VectorIndex, Starting]],
        dimensions: int,
        *,
        replica: str,
        seconds: float = 30.0,
    ) -> None:
        self._choices = choices
        self._dimensions = dimensions
        self._replica = replica
        self._seconds = seconds
        self._current: VectorIndex | None = None
        self._started: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self.name = ""
        """Of the one in use; empty: none."""

    async def start(self) -> None:
        """Choose, and go on checking."""
        await self.check()
        self._task = asyncio.create_task(self._run(), name="index-canary")

    async def close(self) -> None:
        """Stop checking; close all of them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for _, index, _ in self._choices:
            await index.close()

    async def check(self) -> None:
        """Seek the canary in one after the other; use the first that finds it."""
        for name, index, starting in self._choices:
            why = await self._try(name, index, starting)
            metrics.INDEX_CANARY.labels(name, why or "found").inc()
            if not why:
                self._use(name, index)
                return
        self._use("", None)

    def _use(self, name: str, index: VectorIndex | None) -> None:
        self._current = index
        if name == self.name and index is not None:
            return
        preferred = self._choices[0][0] if self._choices else ""
        if name != preferred:
            metrics.INDEX_FALLBACKS.labels(name or "none").inc()
            _log.warning("the index is not sound; another is used", extra={"index": name or "none"})
        else:
            _log.info("the index is sound", extra={"index": name})
        self.name = name
        for known, _, _ in self._choices:
            metrics.INDEX_IN_USE.labels(known).set(known == name)

    async def _try(self, name: str, index: VectorIndex, starting: Starting) -> str:
        """Give an empty word, or why it is not sound."""
        place = Place(CANARY, self._replica, "canary")
        vector = np.zeros(self._dimensions, dtype=np.float32)
        vector[random.randrange(self._dimensions)] = 1.0  # noqa: S311 - not a secret
        try:
            async with asyncio.timeout(_CANARY_SECONDS):
                if name not in self._started:
                    await starting()
                    self._started.add(name)
                await index.add(Item(place, vector))
                try:
                    found = await index.nearest(place.tenant, place.space, vector, 1)
                finally:
                    await index.remove([place])
        except IndexUnavailable as error:
            return error.reason
        except TimeoutError:
            return "timeout"
        except (ValueError, RuntimeError) as error:
            _log.warning("an index failed its canary", extra={"error": type(error).__name__})
            return "failed"
        if not found or found[0].entry_id != place.entry_id or found[0].similarity < 0.9:
            return "not_found"
        return ""

    async def _run(self) -> NoReturn:
        while True:
            spread = random.uniform(0.9, 1.1)  # noqa: S311 - not a secret
            await asyncio.sleep(self._seconds * spread)
            await self.check()

    def _index(self) -> VectorIndex:
        if self._current is None:
            raise IndexUnavailable("index_unsound")
        return self._current

    async def add(self, item: Item) -> bool:
        """See `VectorIndex.add`."""
        return await self._index().add(item)

    async def remove(self, places: Sequence[Place]) -> None:
        """See `VectorIndex.remove`."""
        await self._index().remove(places)

    async def drop(self, tenant: str) -> None:
        """See `VectorIndex.drop`."""
        await self._index().drop(tenant)

    async def holds(self, tenant: str, space: str) -> bool:
        """See `VectorIndex.holds`."""
        return await self._index().holds(tenant, space)

    async def nearest(self, tenant: str, space: str, vector: Vector, k: int) -> Sequence[Nominee]:
        """See `VectorIndex.nearest`."""
        return await self._index().nearest(tenant, space, vector, k)

    async def count(self) -> int:
        """See `VectorIndex.count`."""
        return await self._index().count()
