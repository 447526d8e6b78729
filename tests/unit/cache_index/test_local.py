"""The index in this process keeps the promises of one, exact and approximate."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from parley_cache.index import local
from parley_cache.index.base import IndexUnavailable, Place
from parley_cache.index.local import LocalIndex
from support.vector_index import (
    DIMENSIONS,
    TENANT,
    VectorIndexConformance,
    fill,
    item,
    recall_of,
    some_vectors,
    unit,
)


class TestExactly(VectorIndexConformance):
    RECALL = 1.0

    @pytest.fixture
    async def index(self) -> AsyncIterator[LocalIndex]:
        index = LocalIndex(DIMENSIONS, max_items=self.MAX_ITEMS, graph_above=10**6)
        yield index
        await index.close()


class TestByGraph(VectorIndexConformance):
    @pytest.fixture
    async def index(self) -> AsyncIterator[LocalIndex]:
        # So that even three items are a graph, and a few left of many are one no more.
        index = LocalIndex(DIMENSIONS, max_items=self.MAX_ITEMS, graph_above=1)
        yield index
        await index.close()


class TestWhereItChanges(VectorIndexConformance):
    @pytest.fixture
    async def index(self) -> AsyncIterator[LocalIndex]:
        index = LocalIndex(DIMENSIONS, max_items=self.MAX_ITEMS, graph_above=700)
        yield index
        await index.close()


async def test_an_id_that_moves_to_another_space_leaves_the_first() -> None:
    index = LocalIndex(DIMENSIONS)
    await index.add(item("a", unit(1), space="s"))
    await index.add(item("a", unit(1), space="t"))
    assert not await index.nearest(TENANT, "s", unit(1), 1)
    assert await index.nearest(TENANT, "t", unit(1), 1)
    assert await index.count() == 1
    await index.close()


async def test_memory_of_what_was_removed_is_used_again() -> None:
    index = LocalIndex(DIMENSIONS, max_items=1_000)
    vectors = some_vectors(600)
    for _ in range(5):
        await fill(index, vectors)
        held = index.held_bytes
        await index.remove([Place(TENANT, "s", f"e{n}") for n in range(600)])
    assert index.held_bytes == held
    assert held <= 1_000 * DIMENSIONS * 4
    await index.close()


async def test_half_precision_finds_the_neighbours_among_many() -> None:
    index = LocalIndex(DIMENSIONS, max_items=10_000, graph_above=256)
    vectors = some_vectors(6_000)
    await index.add_all([item(f"e{n}", vectors[n]) for n in range(len(vectors))])
    assert await recall_of(index, vectors, 5) >= 0.95
    await index.close()


async def test_a_larger_graph_is_searched_further(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = some_vectors(4_000)
    monkeypatch.setattr(local, "_LEAST_EXPANSION", 6)
    found = []
    for items_a_candidate in (10**9, 20):
        monkeypatch.setattr(local, "_ITEMS_A_CANDIDATE", items_a_candidate)
        index = LocalIndex(DIMENSIONS, max_items=10_000, graph_above=256)
        await index.add_all([item(f"e{n}", vectors[n]) for n in range(len(vectors))])
        found.append(await recall_of(index, vectors, 5))
        await index.close()
    assert found[0] < found[1]
    assert found[1] >= 0.98


async def test_one_that_is_closed_says_so() -> None:
    index = LocalIndex(DIMENSIONS)
    await index.close()
    with pytest.raises(IndexUnavailable) as told:
        await index.add(item("a", unit(1)))
    assert told.value.reason == "index_closed"


async def test_many_at_once_are_taken_in_as_one_after_the_other_would_be() -> None:
    index = LocalIndex(DIMENSIONS, max_items=1_000, graph_above=100)
    vectors = some_vectors(1_000)
    await index.add_all([item(f"e{n}", vectors[n]) for n in range(400)])
    again = [item("e0", unit(1)), item("e0", unit(0, 1)), item("e1", vectors[1], space="t")]
    odd = [item("odd", vectors[1] * 2), item("more", vectors[5], tenant="globex")]
    assert await index.add_all([*again, *odd]) == 4
    assert await index.count() == 401
    [found] = await index.nearest(TENANT, "s", unit(0, 1), 1)
    assert found.entry_id == "e0"
    assert found.similarity > 0.99, "of one that comes twice the last is kept"
    assert [n.entry_id for n in await index.nearest(TENANT, "t", vectors[1], 9)] == ["e1"]
    assert "e1" not in {n.entry_id for n in await index.nearest(TENANT, "s", vectors[1], 400)}
    # What there is no room for is refused, and only that.
    assert await index.add_all([item(f"e{n}", vectors[n]) for n in range(1_000)]) == 999
    assert await index.count() == 1_000
    await index.close()
