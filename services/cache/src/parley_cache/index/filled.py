"""Redis' vector sets, filled from the store.

What is in the store and not in the sets is added: all of it when an operator switches
from the local index or the sets were lost, and what was stored while the sets could not
be written. Replicas take turns by one key, which also says how far the one whose turn it
is has come; one that dies in its turn is followed by another. What the store lacks is
not sought: it is forgotten when it is nominated.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn

from parley_cache import metrics
from parley_cache.index.base import IndexUnavailable, Item, Nominee, Place, Vector
from parley_cache.index.followed import Catalogue
from parley_cache.index.vector_sets import VectorSetIndex
from parley_cache.store.base import StoreError

_log = logging.getLogger(__name__)
_BATCH = 16
"""Added at a time: Redis searches for each one's neighbours."""
_PAUSE_SECONDS = 5.0
_TURN_SECONDS = 30.0
"""After which a silent turn is another's."""
_CALL_SECONDS = 10.0


class FilledIndex:
    """A `VectorIndex`; `start` it.

    Args:
        sets: what is filled.
        catalogue: what it is filled from.
        seconds: between two comparisons.
        pause_seconds: between two looks at whose turn it is.
    """

    def __init__(
        self,
        sets: VectorSetIndex,
        catalogue: Catalogue,
        *,
        seconds: float = 300.0,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._sets = sets
        self._catalogue = catalogue
        self._seconds = seconds
        self._pause_seconds = pause_seconds
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to fill; does not wait for it. Raises IndexUnavailable without vector sets."""
        await self._sets.probe()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="index-filling")

    async def close(self) -> None:
        """Stop filling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._sets.close()

    async def add(self, item: Item) -> bool:
        """See `VectorIndex.add`."""
        return await self._sets.add(item)

    async def remove(self, places: Sequence[Place]) -> None:
        """See `VectorIndex.remove`."""
        await self._sets.remove(places)

    async def drop(self, tenant: str) -> None:
        """See `VectorIndex.drop`."""
        await self._sets.drop(tenant)

    async def holds(self, tenant: str, space: str) -> bool:
        """See `VectorIndex.holds`."""
        return await self._sets.holds(tenant, space)

    async def nearest(self, tenant: str, space: str, vector: Vector, k: int) -> Sequence[Nominee]:
        """See `VectorIndex.nearest`."""
        return await self._sets.nearest(tenant, space, vector, k)

    async def count(self) -> int:
        """See `VectorIndex.count`."""
        return await self._sets.count()

    async def _run(self) -> NoReturn:
        while True:
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    progress = await self._sets.take_turn(_TURN_SECONDS)
                if progress is None:
                    await self.fill()
                else:
                    metrics.INDEX_BUILT.set(progress)
            except (StoreError, IndexUnavailable, TimeoutError) as error:
                metrics.INDEX_EVENTS.labels("fill", "failed").inc()
                _log.debug("the sets cannot be filled", extra={"why": type(error).__name__})
            await asyncio.sleep(self._pause_seconds)

    async def fill(self) -> None:
        """Add what is missing, in one's turn. Raises StoreError and IndexUnavailable."""
        began = time.perf_counter()
        await self._tell(0.0, _TURN_SECONDS)
        tenants = await self._catalogue.tenants()
        total, seen = max(1, sum(tenants.values())), 0
        for tenant in tenants:
            async for page in self._catalogue.ids(tenant):
                for start in range(0, len(page), _BATCH):
                    await self._add(tenant, page[start : start + _BATCH])
                    seen += len(page[start : start + _BATCH])
                    await self._tell(min(0.999, seen / total), _TURN_SECONDS)
        # Whole: until it is time to compare again, nobody has a turn.
        await self._tell(1.0, self._seconds)
        metrics.INDEX_BUILD_SECONDS.set(time.perf_counter() - began)

    async def _tell(self, progress: float, seconds: float) -> None:
        metrics.INDEX_BUILT.set(progress)
        async with asyncio.timeout(_CALL_SECONDS):
            await self._sets.tell_turn(progress, seconds)

    async def _add(self, tenant: str, ids: Sequence[str]) -> None:
        async with asyncio.timeout(_CALL_SECONDS):
            items = await self._catalogue.items(tenant, ids)
            missing = await self._sets.missing(items)
            counts: Mapping[str, int] = await self._sets.add_all(missing)
        for change, count in counts.items():
            metrics.INDEX_MENDED.labels(change).inc(count)
