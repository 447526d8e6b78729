"""An index that does not find its canary is replaced, and comes back when it does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY

from parley_cache.index.base import IndexUnavailable, Item, Nominee, Place, Vector
from parley_cache.index.checked import CheckedIndex
from parley_cache.index.local import LocalIndex
from support.vector_index import DIMENSIONS, TENANT, item, unit


class Unreliable(LocalIndex):
    """An index that can be made to fail in several ways."""

    def __init__(self) -> None:
        super().__init__(DIMENSIONS)
        self.fault = ""

    async def add(self, item: Item) -> bool:
        if self.fault == "away":
            raise IndexUnavailable("index_unavailable")
        return self.fault == "read_only" or await super().add(item)

    async def nearest(self, tenant: str, space: str, vector: Vector, k: int) -> Sequence[Nominee]:
        if self.fault == "broken":
            raise RuntimeError("a defect")
        found = await super().nearest(tenant, space, vector, k)
        return [Nominee("another", 1.0) for _ in found] if self.fault == "lying" else found


async def ready() -> None:
    return


async def test_a_sound_index_is_used_and_no_canary_is_left() -> None:
    first, second = Unreliable(), LocalIndex(DIMENSIONS)
    index = CheckedIndex(
        [("first", first, ready), ("second", second, ready)], DIMENSIONS, replica="r"
    )
    await index.start()
    assert index.name == "first"
    assert await first.count() == 0
    await index.add(item("a", unit(1)))
    assert await first.count() == 1
    await index.close()


@pytest.mark.parametrize("fault", ["away", "read_only", "broken", "lying"])
async def test_one_that_fails_is_replaced_counted_and_taken_back(fault: str) -> None:
    first, second = Unreliable(), LocalIndex(DIMENSIONS)
    index = CheckedIndex(
        [("first", first, ready), ("second", second, ready)], DIMENSIONS, replica="r"
    )

    def fallbacks() -> float:
        name = "parley_cache_index_fallbacks_total"
        return REGISTRY.get_sample_value(name, {"index": "second"}) or 0.0

    before = fallbacks()
    first.fault = fault
    await index.check()
    await index.check()
    assert index.name == "second"
    assert fallbacks() == before + 1
    await index.add(item("a", unit(1)))
    assert await second.count() == 1
    first.fault = ""
    await index.check()
    assert index.name == "first"
    await index.close()


async def test_where_none_is_sound_look_ups_go_on_without() -> None:
    only = Unreliable()
    only.fault = "read_only"
    index = CheckedIndex([("only", only, ready)], DIMENSIONS, replica="r")
    await index.check()
    assert index.name == ""
    with pytest.raises(IndexUnavailable) as told:
        await index.nearest(TENANT, "s", unit(1), 1)
    assert told.value.reason == "index_unsound"
    await index.remove([]) if index.name else None
    await index.close()


async def test_one_that_cannot_be_readied_is_tried_again() -> None:
    first = LocalIndex(DIMENSIONS)
    tries = 0

    async def late() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise IndexUnavailable("not_yet")

    index = CheckedIndex([("first", first, late)], DIMENSIONS, replica="r")
    for _ in range(4):
        await index.check()
    assert (index.name, tries) == ("first", 3)
    assert await index.nearest(TENANT, "s", unit(1), 1) == ()
    await index.remove([Place(TENANT, "s", "a")])
    await index.close()
