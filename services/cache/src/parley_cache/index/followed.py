"""The local index, kept alike on all replicas.

A replica applies its own changes at once and publishes them, and follows what the
others publish. At the start, after a gap or a failure, and every so often anyway, it
compares itself with the store: what it lacks it reads, what the store lacks it forgets.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NoReturn, Protocol

from parley_cache import metrics
from parley_cache.index.base import CANARY, Item, Nominee, Place, Vector
from parley_cache.index.feed import Change, Event, Feed, Gap, no_vector
from parley_cache.index.local import LocalIndex
from parley_cache.store.base import StoreError

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0
_READ_SECONDS = 1.0
_BATCH = 64
"""Items taken in at a time while rebuilding: a look-up waits for no more than these."""
_CALL_SECONDS = 10.0


class Catalogue(Protocol):
    """What the store holds, to compare the index with. Each method may raise StoreError."""

    async def tenants(self) -> Mapping[str, int]:
        """Name the tenants that hold entries, with how many, about."""
        ...

    def ids(self, tenant: str) -> AsyncIterator[Sequence[str]]:
        """Page through the ids of a tenant's entries that have not expired."""
        ...

    async def items(self, tenant: str, ids: Sequence[str]) -> Sequence[Item]:
        """Read entries' places and vectors; those without are left out."""
        ...


class FollowedIndex:
    """A `VectorIndex` that follows others; `start` it.

    Args:
        local: what is kept.
        feed: what is followed.
        catalogue: what it is compared with.
        reconcile_seconds: between two comparisons.
    """

    def __init__(
        self,
        local: LocalIndex,
        feed: Feed,
        catalogue: Catalogue,
        *,
        reconcile_seconds: float = 300.0,
        read_seconds: float = _READ_SECONDS,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._local = local
        self._feed = feed
        self._catalogue = catalogue
        self._reconcile_seconds = reconcile_seconds
        self._read_seconds = read_seconds
        self._pause_seconds = pause_seconds
        self._task: asyncio.Task[None] | None = None
        self._touched: set[str] | None = None
        """Ids that changed while a comparison goes on, which must leave them alone."""
        self.built = asyncio.Event()
        """Set once the index was whole."""

    async def start(self) -> None:
        """Begin to build and follow; does not wait for it."""
        self._task = asyncio.create_task(self._run(), name="index-following")

    async def close(self) -> None:
        """Stop following and give the memory back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._local.close()

    async def add(self, item: Item) -> bool:
        """Take an item in, and tell the others."""
        self._touch(item.place)
        taken = await self._local.add(item)
        await self._publish(Change.ADD, [item.place], item.vector)
        return taken

    async def remove(self, places: Sequence[Place]) -> None:
        """Forget items, and tell the others."""
        for place in places:
            self._touch(place)
        await self._local.remove(places)
        await self._publish(Change.REMOVE, places, no_vector())

    async def drop(self, tenant: str) -> None:
        """Forget a tenant, and tell the others."""
        await self._local.drop(tenant)
        await self._publish(Change.DROP, [Place(tenant, "", "")], no_vector())

    async def holds(self, tenant: str, space: str) -> bool:
        """Whether a space has any item, as far as this replica knows."""
        return await self._local.holds(tenant, space)

    async def nearest(self, tenant: str, space: str, vector: Vector, k: int) -> Sequence[Nominee]:
        """Give the nearest of a space, as far as this replica knows."""
        return await self._local.nearest(tenant, space, vector, k)

    async def count(self) -> int:
        """Say how many items this replica holds."""
        return await self._local.count()

    async def reconcile(self) -> None:
        """Compare with the store and mend. Raises StoreError."""
        began = time.perf_counter()
        self._touched = set()
        try:
            await self._compare(await self._catalogue.tenants())
        finally:
            self._touched = None
        metrics.INDEX_BUILD_SECONDS.set(time.perf_counter() - began)
        metrics.INDEX_BUILT.set(1.0)
        self._report(await self._local.count())

    async def _compare(self, tenants: Mapping[str, int]) -> None:
        total, seen = max(1, sum(tenants.values())), 0
        for tenant in await self._local.tenants():
            if tenant not in tenants and tenant != CANARY:
                await self._forget(await self._local.places(tenant), tenant, set())
        for tenant in tenants:
            held = await self._local.places(tenant)
            stored: set[str] = set()
            async for page in self._catalogue.ids(tenant):
                stored.update(page)
                missing = [entry_id for entry_id in page if entry_id not in held]
                for start in range(0, len(missing), _BATCH):
                    await self._learn(tenant, missing[start : start + _BATCH])
                seen += len(page)
                if not self.built.is_set():
                    metrics.INDEX_BUILT.set(min(1.0, seen / total))
            await self._forget(held, tenant, stored)

    async def _learn(self, tenant: str, ids: Sequence[str]) -> None:
        async with asyncio.timeout(_CALL_SECONDS):
            items = await self._catalogue.items(tenant, ids)
        if not items:
            return
        taken = await self._local.add_all(items)
        metrics.INDEX_MENDED.labels("added").inc(taken)
        metrics.INDEX_MENDED.labels("refused").inc(len(items) - taken)

    async def _forget(self, held: Mapping[str, str], tenant: str, stored: set[str]) -> None:
        touched = self._touched or set()
        gone = [
            Place(tenant, space, entry_id)
            for entry_id, space in held.items()
            if entry_id not in stored and entry_id not in touched
        ]
        await self._local.remove(gone)
        metrics.INDEX_MENDED.labels("removed").inc(len(gone))

    async def _run(self) -> NoReturn:
        while True:
            try:
                # The tip first: what changes while comparing is read afterwards.
                after = await self._feed.tip()
                await self.reconcile()
                self.built.set()
                await self._follow(after)
            except Gap:
                _log.info("events of the index were missed; it is compared with the store")
            except (StoreError, TimeoutError) as error:
                metrics.INDEX_EVENTS.labels("read", "failed").inc()
                _log.debug("the index cannot be followed", extra={"why": type(error).__name__})
                await asyncio.sleep(self._pause_seconds)

    async def _follow(self, after: str) -> None:
        """Apply events until it is time to compare again."""
        until = time.monotonic() + self._reconcile_seconds
        while time.monotonic() < until:
            after, events = await self._feed.read(after, self._read_seconds)
            for event in events:
                if event.by != self._feed.name:
                    await self._apply(event)
            if events:
                self._report(await self._local.count())

    async def _apply(self, event: Event) -> None:
        outcome = "applied"
        self._touch(event.place)
        if event.change is Change.DROP:
            await self._local.drop(event.place.tenant)
        elif event.change is Change.REMOVE:
            await self._local.remove([event.place])
        elif not await self._local.add_all([event.item]):
            # No room, or made by a model of another shape.
            outcome = "refused"
        metrics.INDEX_EVENTS.labels(event.change.value, outcome).inc()

    async def _publish(self, change: Change, places: Sequence[Place], vector: Vector) -> None:
        places = [place for place in places if place.tenant != CANARY]
        if not places:
            return
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await self._feed.publish(change, places, vector)
        except (StoreError, TimeoutError):
            # The others find it when they compare.
            metrics.INDEX_EVENTS.labels("publish", "failed").inc()

    def _touch(self, place: Place) -> None:
        if self._touched is not None:
            self._touched.add(place.entry_id)

    def _report(self, count: int) -> None:
        metrics.INDEX_ITEMS.set(count)
        metrics.INDEX_BYTES.set(self._local.held_bytes)
