"""The index in this process: exact for small spaces, approximate for large ones.

A small space is a list of rows of one shared matrix and is searched by a product
with it (exact). Above `graph_above` items a space moves to a graph of its own
(usearch, HNSW, half precision), and back when it has shrunk to a quarter of that.
All work is done by one thread, so the event loop never computes and nothing is
locked.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from usearch.index import Index as Graph

from parley_cache.index.arena import Arena
from parley_cache.index.base import IndexUnavailable, Item, Nominee, Place, Vector, checked

T = TypeVar("T")

_Address = tuple[str, str]
"""Tenant and space."""

# Half the library's: adding takes little more than half the time, and of the true 8 nearest
# of 20,000 vectors 99.9 % are found, as with all of it (`make bench-cache`).
_EXPANSION_ADD = 64
# Candidates that a search keeps: the library's number, and more in a large graph. Of a million
# made-up vectors 0.70 of the true 8 nearest are found with 64, and 0.90 with 244.
_LEAST_EXPANSION = 64
_ITEMS_A_CANDIDATE = 4_096
_THREADS = min(4, os.cpu_count() or 1)
_LEAST_A_THREAD = 16


class _Rows:
    """A small space: ids and their rows in the arena."""

    __slots__ = ("ids",)

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}


class _Graph:
    """A large space: a graph whose keys are numbers."""

    __slots__ = ("_next_key", "graph", "ids", "names")

    def __init__(self, dimensions: int) -> None:
        # Half precision: only who is nominated hangs on it, never a verdict.
        self.graph: Any = Graph(
            ndim=dimensions, metric="ip", dtype="f16", expansion_add=_EXPANSION_ADD
        )
        self.ids: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self._next_key = 0

    def put(self, vectors: Mapping[str, Vector]) -> None:
        """Keep vectors by id, over any of the same ids; many are spread over threads."""
        for entry_id in vectors:
            if entry_id in self.ids:
                self.remove(entry_id)
        first, self._next_key = self._next_key, self._next_key + len(vectors)
        keys = range(first, self._next_key)
        self.graph.add(
            np.array(keys, dtype=np.uint64),
            np.array(list(vectors.values()), dtype=np.float32),
            threads=max(1, min(_THREADS, len(vectors) // _LEAST_A_THREAD)),
        )
        self.graph.expansion_search = max(_LEAST_EXPANSION, len(self.graph) // _ITEMS_A_CANDIDATE)
        self.ids.update(zip(vectors, keys, strict=True))
        self.names.update(zip(keys, vectors, strict=True))

    def remove(self, entry_id: str) -> None:
        """Forget one that is held."""
        key = self.ids.pop(entry_id)
        self.graph.remove(key)
        del self.names[key]


class LocalIndex:
    """A `VectorIndex` in this process.

    Args:
        dimensions: of every vector.
        max_items: more are refused.
        graph_above: items above which a space is searched approximately.
    """

    def __init__(
        self, dimensions: int, *, max_items: int = 200_000, graph_above: int = 2_048
    ) -> None:
        self._dimensions = dimensions
        self._max_items = max_items
        self._graph_above = graph_above
        self._arena = Arena(dimensions, max_items)
        self._spaces: dict[_Address, _Rows | _Graph] = {}
        self._tenants: dict[str, dict[str, str]] = {}
        """Of each tenant, the space of every id: an id is in one space only."""
        self._count = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._closed = False

    async def add(self, item: Item) -> bool:
        """Take an item in."""
        vector = checked(item.vector, self._dimensions)
        return await self._do(lambda: self._add_all([Item(item.place, vector)])) == 1

    async def add_all(self, items: Sequence[Item]) -> int:
        """Take many in, passing over vectors of another shape; give how many there was room for."""
        return await self._do(lambda: self._add_all(items))

    async def remove(self, places: Sequence[Place]) -> None:
        """Forget items."""
        await self._do(lambda: self._remove_all(places))

    async def drop(self, tenant: str) -> None:
        """Forget all items of a tenant."""
        await self._do(lambda: self._drop(tenant))

    async def holds(self, tenant: str, space: str) -> bool:
        """Whether a space has any item."""
        return (tenant, space) in self._spaces

    async def nearest(self, tenant: str, space: str, vector: Vector, k: int) -> Sequence[Nominee]:
        """Give the nearest of a space."""
        if (tenant, space) not in self._spaces or k <= 0:
            return ()
        sought = checked(vector, self._dimensions)
        return await self._do(lambda: self._nearest((tenant, space), sought, k))

    async def count(self) -> int:
        """Say how many items are held."""
        return self._count

    async def places(self, tenant: str) -> dict[str, str]:
        """Give the space of every id of a tenant."""
        return await self._do(lambda: dict(self._tenants.get(tenant, {})))

    async def tenants(self) -> list[str]:
        """Name the tenants that have items."""
        return await self._do(lambda: list(self._tenants))

    @property
    def held_bytes(self) -> int:
        """Memory of the vectors, approximately."""
        graphs = (s for s in list(self._spaces.values()) if isinstance(s, _Graph))
        return self._arena.held_bytes + sum(int(space.graph.memory_usage) for space in graphs)

    async def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _do(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise IndexUnavailable("index_closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # in the thread ------------------------------------------------------------

    def _add_all(self, items: Sequence[Item]) -> int:
        """Take in what is sound; of an id that comes twice, the last. Give how many had room."""
        wanted: dict[tuple[str, str], tuple[str, Vector]] = {}
        sound = 0
        for item in items:
            try:
                vector = checked(item.vector, self._dimensions)
            except ValueError:
                continue
            sound += 1
            wanted[item.place.tenant, item.place.entry_id] = item.place.space, vector
        refused = 0
        by_space: dict[_Address, dict[str, Vector]] = defaultdict(dict)
        for (tenant, entry_id), (space, vector) in wanted.items():
            if self._admit(Place(tenant, space, entry_id)):
                by_space[tenant, space][entry_id] = vector
            else:
                refused += 1
        for address, vectors in by_space.items():
            self._put(address, vectors)
        return sound - refused

    def _admit(self, place: Place) -> bool:
        """Book an id in its space, taking it out of another; False: there is no room."""
        before = self._tenants.get(place.tenant, {}).get(place.entry_id)
        if before == place.space:
            return True
        if before is not None:
            self._remove(Place(place.tenant, before, place.entry_id))
        if self._count >= self._max_items:
            return False
        self._tenants.setdefault(place.tenant, {})[place.entry_id] = place.space
        self._count += 1
        return True

    def _put(self, address: _Address, vectors: Mapping[str, Vector]) -> None:
        space = self._spaces.setdefault(address, _Rows())
        if isinstance(space, _Rows) and len(space.ids.keys() | vectors) > self._graph_above:
            space = self._spaces[address] = self._as_graph(space)
        if isinstance(space, _Graph):
            space.put(vectors)
            return
        for entry_id, vector in vectors.items():
            space.ids[entry_id] = self._arena.put(vector, space.ids.get(entry_id))

    def _as_graph(self, small: _Rows) -> _Graph:
        large = _Graph(self._dimensions)
        rows = list(small.ids.values())
        if rows:
            large.put(dict(zip(small.ids, self._arena.at(rows), strict=True)))
        for row in rows:
            self._arena.give_back(row)
        return large

    def _as_rows(self, large: _Graph) -> _Rows:
        small = _Rows()
        for name, key in large.ids.items():
            vector = np.asarray(large.graph.get(key), dtype=np.float32).reshape(-1)
            small.ids[name] = self._arena.put(vector)
        return small

    def _remove_all(self, places: Sequence[Place]) -> None:
        for place in places:
            self._remove(place)

    def _remove(self, place: Place) -> None:
        address = (place.tenant, place.space)
        held = self._tenants.get(place.tenant, {})
        space = self._spaces.get(address)
        if space is None or held.get(place.entry_id) != place.space:
            return
        del held[place.entry_id]
        if not held:
            del self._tenants[place.tenant]
        self._count -= 1
        if isinstance(space, _Rows):
            self._arena.give_back(space.ids.pop(place.entry_id))
        else:
            space.remove(place.entry_id)
        if not space.ids:
            del self._spaces[address]
        elif isinstance(space, _Graph) and len(space.ids) < self._graph_above // 4:
            # Removed items stay in a graph as ballast; this gives their memory back.
            self._spaces[address] = self._as_rows(space)

    def _drop(self, tenant: str) -> None:
        held = self._tenants.pop(tenant, {})
        self._count -= len(held)
        for name in set(held.values()):
            space = self._spaces.pop((tenant, name), None)
            if isinstance(space, _Rows):
                for row in space.ids.values():
                    self._arena.give_back(row)

    def _nearest(self, address: _Address, vector: Vector, k: int) -> Sequence[Nominee]:
        space = self._spaces.get(address)
        if space is None:
            return ()
        if isinstance(space, _Graph):
            found = space.graph.search(vector, min(k, len(space.ids)), threads=1)
            return [
                Nominee(space.names[int(key)], 1.0 - float(distance))
                for key, distance in zip(found.keys, found.distances, strict=True)
                if int(key) in space.names
            ]
        names = list(space.ids)
        likeness = self._arena.at(list(space.ids.values())) @ vector
        best = np.argsort(-likeness, kind="stable")[:k]
        return [Nominee(names[place], float(likeness[place])) for place in best]
