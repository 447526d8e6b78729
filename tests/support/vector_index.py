"""What any vector index must do: one suite, run against each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from parley_cache.index.base import Item, Place, Vector, VectorIndex

DIMENSIONS = 64
TENANT = "acme"


def unit(*values: float) -> Vector:
    """A unit vector that begins so."""
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    vector[: len(values)] = values
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def some_vectors(count: int, seed: int = 7) -> npt.NDArray[np.float32]:
    """Unit vectors in clusters, as questions on a few themes are; (count, DIMENSIONS)."""
    numbers = np.random.default_rng(seed)
    themes = numbers.normal(size=(max(1, count // 20), DIMENSIONS))
    rows = themes[numbers.integers(len(themes), size=count)]
    rows = rows + 0.5 * numbers.normal(size=(count, DIMENSIONS))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def item(entry_id: str, vector: Vector, *, space: str = "s", tenant: str = TENANT) -> Item:
    return Item(Place(tenant, space, entry_id), vector)


async def fill(index: VectorIndex, vectors: npt.NDArray[np.float32], space: str = "s") -> None:
    for start in range(0, len(vectors), 100):
        await asyncio.gather(
            *(
                index.add(item(f"e{number}", vectors[number], space=space))
                for number in range(start, min(start + 100, len(vectors)))
            )
        )


async def recall_of(index: VectorIndex, vectors: npt.NDArray[np.float32], k: int) -> float:
    """Share of the true k nearest that are found, over 50 questions near stored ones."""
    numbers = np.random.default_rng(11)
    found = 0
    for _ in range(50):
        asked = vectors[numbers.integers(len(vectors))] + 0.05 * numbers.normal(size=DIMENSIONS)
        asked = np.asarray(asked / np.linalg.norm(asked), dtype=np.float32)
        truth = {f"e{place}" for place in np.argsort(-(vectors @ asked))[:k]}
        found += len(truth & {n.entry_id for n in await index.nearest(TENANT, "s", asked, k)})
    return found / (50 * k)


class MemoryCatalogue:
    """What a store holds, as the followed index sees it."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Item]] = {}

    def put(self, added: Item) -> None:
        self.held.setdefault(added.place.tenant, {})[added.place.entry_id] = added

    async def tenants(self) -> Mapping[str, int]:
        return {tenant: len(items) for tenant, items in self.held.items()}

    async def ids(self, tenant: str) -> AsyncIterator[Sequence[str]]:
        ids = list(self.held.get(tenant, {}))
        for start in range(0, len(ids), 100):
            yield ids[start : start + 100]

    async def items(self, tenant: str, ids: Sequence[str]) -> Sequence[Item]:
        held = self.held.get(tenant, {})
        return [held[entry_id] for entry_id in ids if entry_id in held]


class VectorIndexConformance:
    """Derive, and give the fixture `index`, of at most `MAX_ITEMS` items a space."""

    MAX_ITEMS = 1_500
    RECALL = 0.95

    async def test_the_nearest_come_first(self, index: VectorIndex) -> None:
        for name, vector in {"x": unit(1), "xy": unit(1, 1), "y": unit(0, 1)}.items():
            assert await index.add(item(name, vector))
        found = await index.nearest(TENANT, "s", unit(1, 0.2), 2)
        assert [nominee.entry_id for nominee in found] == ["x", "xy"]
        assert abs(found[0].similarity - float(unit(1, 0.2) @ unit(1))) < 0.02
        assert await index.count() == 3

    async def test_nothing_is_found_in_another_space_or_of_another_tenant(
        self, index: VectorIndex
    ) -> None:
        await index.add(item("here", unit(1)))
        await index.add(item("there", unit(1), space="t"))
        await index.add(item("theirs", unit(1), tenant="globex"))
        found = await index.nearest(TENANT, "s", unit(1), 10)
        assert [nominee.entry_id for nominee in found] == ["here"]
        assert not await index.nearest(TENANT, "nowhere", unit(1), 10)
        assert not await index.nearest("nobody", "s", unit(1), 10)
        assert not await index.nearest(TENANT, "s", unit(1), 0)

    async def test_a_space_holds_what_was_added_until_the_last_is_gone(
        self, index: VectorIndex
    ) -> None:
        assert not await index.holds(TENANT, "s")
        await index.add(item("a", unit(1)))
        await index.add(item("b", unit(1, 1)))
        assert await index.holds(TENANT, "s")
        assert not await index.holds(TENANT, "t")
        assert not await index.holds("globex", "s")
        await index.remove([Place(TENANT, "s", "a")])
        assert await index.holds(TENANT, "s")
        await index.remove([Place(TENANT, "s", "b")])
        assert not await index.holds(TENANT, "s")
        await index.add(item("a", unit(1)))
        await index.drop(TENANT)
        assert not await index.holds(TENANT, "s")

    async def test_adding_again_replaces(self, index: VectorIndex) -> None:
        await index.add(item("a", unit(1)))
        await index.add(item("b", unit(1, 1)))
        await index.add(item("a", unit(0, 1)))
        found = await index.nearest(TENANT, "s", unit(0, 1), 10)
        assert [nominee.entry_id for nominee in found] == ["a", "b"]
        assert await index.count() == 2

    async def test_what_was_removed_is_not_found(self, index: VectorIndex) -> None:
        for number in range(5):
            await index.add(item(f"e{number}", unit(1, number / 10)))
        gone = [Place(TENANT, "s", "e0"), Place(TENANT, "s", "e3"), Place(TENANT, "x", "e1")]
        await index.remove(gone)
        await index.remove(gone)
        found = await index.nearest(TENANT, "s", unit(1), 10)
        assert [nominee.entry_id for nominee in found] == ["e1", "e2", "e4"]
        await index.remove([Place(TENANT, "s", f"e{n}") for n in range(5)])
        assert not await index.nearest(TENANT, "s", unit(1), 10)
        assert await index.count() == 0
        await index.add(item("again", unit(1)))
        assert await index.nearest(TENANT, "s", unit(1), 1)

    async def test_a_dropped_tenant_has_nothing_and_others_keep_theirs(
        self, index: VectorIndex
    ) -> None:
        for number in range(20):
            await index.add(item(f"e{number}", unit(1), space=f"s{number % 4}"))
        await index.add(item("theirs", unit(1), tenant="globex"))
        await index.drop(TENANT)
        await index.drop("nobody")
        for number in range(4):
            assert not await index.nearest(TENANT, f"s{number}", unit(1), 3)
        assert await index.nearest("globex", "s", unit(1), 3)
        assert await index.count() == 1

    @pytest.mark.parametrize(
        "wrong",
        [
            np.ones(DIMENSIONS, dtype=np.float32),
            np.zeros(DIMENSIONS, dtype=np.float32),
            np.full(DIMENSIONS, np.nan, dtype=np.float32),
            np.ones(1, dtype=np.float32),
            np.ones((2, DIMENSIONS), dtype=np.float32),
        ],
        ids=["too-long", "zero", "nan", "other-dimensions", "two"],
    )
    async def test_what_is_no_vector_is_refused(self, index: VectorIndex, wrong: Vector) -> None:
        await index.add(item("sound", unit(1)))
        with pytest.raises(ValueError):
            await index.add(item("wrong", wrong))
        with pytest.raises(ValueError):
            await index.nearest(TENANT, "s", wrong, 3)
        found = await index.nearest(TENANT, "s", unit(1), 3)
        assert [nominee.entry_id for nominee in found] == ["sound"]

    async def test_memory_is_bounded(self, index: VectorIndex) -> None:
        vectors = some_vectors(self.MAX_ITEMS + 20)
        await fill(index, vectors[: self.MAX_ITEMS])
        assert not await index.add(item("one more", unit(1)))
        assert await index.count() == self.MAX_ITEMS
        await index.remove([Place(TENANT, "s", "e0")])
        assert await index.add(item("one more", unit(1)))

    async def test_the_neighbours_are_those_that_brute_force_finds(
        self, index: VectorIndex
    ) -> None:
        vectors = some_vectors(self.MAX_ITEMS)
        await fill(index, vectors)
        assert await recall_of(index, vectors, 10) >= self.RECALL
        # Removing most of them does not spoil what is left.
        left = self.MAX_ITEMS // 10
        await index.remove([Place(TENANT, "s", f"e{n}") for n in range(left, self.MAX_ITEMS)])
        assert await index.count() == left
        assert await recall_of(index, vectors[:left], 10) >= self.RECALL
