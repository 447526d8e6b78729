"""Vector sets are filled from the store: on a switch from the local index, and after a loss."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import REGISTRY

from parley_cache.index.base import IndexUnavailable
from parley_cache.index.filled import FilledIndex
from parley_cache.index.vector_sets import VectorSetIndex
from parley_cache.store.base import StoreUnavailable
from parley_cache.store.redis_client import Client, open_client
from support.poll import until
from support.servers import ValkeyServer
from support.vector_index import (
    DIMENSIONS,
    TENANT,
    MemoryCatalogue,
    VectorIndexConformance,
    item,
    some_vectors,
    unit,
)

pytestmark = pytest.mark.integration
Make = Callable[..., FilledIndex]


@pytest.fixture
async def client(redis8_url: str) -> AsyncIterator[Client]:
    client = open_client(redis8_url, max_connections=16, connect_seconds=2)
    yield client
    await client.aclose()


@pytest.fixture
async def catalogue() -> MemoryCatalogue:
    return MemoryCatalogue()


@pytest.fixture
async def make(client: Client, catalogue: MemoryCatalogue) -> AsyncIterator[Make]:
    """Makes replicas that fill the same sets from one store."""
    made: list[FilledIndex] = []
    prefix = f"test:{uuid.uuid4().hex[:8]}"

    def replica(**more: float) -> FilledIndex:
        sets = VectorSetIndex(
            client, DIMENSIONS, prefix=prefix, max_items=VectorIndexConformance.MAX_ITEMS
        )
        made.append(FilledIndex(sets, catalogue, pause_seconds=0.05, **more))
        return made[-1]

    yield replica
    for index in made:
        for tenant in (TENANT, "globex"):
            await index.drop(tenant)
        await index.close()


class TestFilled(VectorIndexConformance):
    RECALL = 0.9

    @pytest.fixture
    async def index(self, make: Make) -> FilledIndex:
        # Not started: what it is filled from is empty here, on purpose.
        return make()


def built() -> float:
    return REGISTRY.get_sample_value("parley_cache_index_built_ratio") or 0.0


async def count_is(index: FilledIndex, count: int) -> None:
    async def there() -> bool:
        return await index.count() == count

    await until(there, what=f"{count} items in the sets")


async def test_what_was_stored_before_is_found_after_the_switch(
    make: Make, catalogue: MemoryCatalogue
) -> None:
    vectors = some_vectors(120)
    for number in range(120):
        tenant = TENANT if number % 3 else "globex"
        catalogue.put(item(f"e{number}", vectors[number], space=f"s{number % 2}", tenant=tenant))
    one, two = make(), make()
    await one.start()
    await two.start()
    await count_is(two, 120)
    await until(lambda: built() == 1.0, what="the progress to be whole")
    [found] = await two.nearest(TENANT, "s1", vectors[1], 1)
    assert found.entry_id == "e1"


async def test_what_was_missed_is_added_when_it_is_compared_again(
    make: Make, catalogue: MemoryCatalogue
) -> None:
    index = make(seconds=0.1)
    await index.start()
    await until(lambda: built() == 1.0)
    catalogue.put(item("stored elsewhere", unit(1)))
    await count_is(index, 1)
    # Those that are there stay as they are.
    catalogue.put(item("stored elsewhere", unit(0, 1)))
    catalogue.put(item("another", unit(1, 1)))
    await count_is(index, 2)
    found = await index.nearest(TENANT, "s", unit(1), 1)
    assert found[0].similarity > 0.99


async def test_one_replica_at_a_time_fills_and_says_how_far_it_is(
    make: Make, catalogue: MemoryCatalogue, client: Client
) -> None:
    sets = make()._sets
    assert await sets.take_turn(100.0) is None
    assert await sets.take_turn(100.0) == 0.0
    await sets.tell_turn(0.25, 100.0)
    catalogue.put(item("a", unit(1)))
    index = make()
    await index.start()
    await until(lambda: built() == 0.25, what="the other's progress to be shown")
    assert await index.count() == 0
    # It died in its turn: another goes on.
    await sets.tell_turn(0.25, 0.01)
    await count_is(index, 1)
    await until(lambda: built() == 1.0)


async def test_no_more_than_the_bound_is_added(make: Make, catalogue: MemoryCatalogue) -> None:
    vectors = some_vectors(VectorIndexConformance.MAX_ITEMS + 40)
    for number, vector in enumerate(vectors):
        catalogue.put(item(f"e{number}", vector))
    index = make()
    await index._sets.take_turn(1000.0)
    await index.fill()
    assert len(vectors) - 60 < await index.count() <= VectorIndexConformance.MAX_ITEMS


async def test_a_store_that_is_away_is_tried_again(
    make: Make, catalogue: MemoryCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.put(item("a", unit(1)))
    tenants, calls = catalogue.tenants, 0

    async def away() -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreUnavailable("gone")
        return await tenants()

    monkeypatch.setattr(catalogue, "tenants", away)
    monkeypatch.setattr("parley_cache.index.filled._TURN_SECONDS", 0.2)
    index = make()
    await index.start()
    await count_is(index, 1)


async def test_a_redis_without_vector_sets_is_said_at_the_start(
    valkey_server: ValkeyServer, catalogue: MemoryCatalogue
) -> None:
    client = open_client(valkey_server.url, max_connections=4, connect_seconds=2)
    index = FilledIndex(VectorSetIndex(client, DIMENSIONS), catalogue)
    with pytest.raises(IndexUnavailable) as told:
        await index.start()
    assert told.value.reason == "vector_sets_missing"
    await index.close()
    await client.aclose()
