"""The indexes that live in Redis or follow it, on real servers."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable

import pytest
import redis.asyncio as redis_asyncio

from parley_cache.index.base import IndexUnavailable, Place
from parley_cache.index.checked import CheckedIndex
from parley_cache.index.feed import Feed
from parley_cache.index.followed import FollowedIndex
from parley_cache.index.local import LocalIndex
from parley_cache.index.vector_sets import VectorSetIndex
from parley_cache.store.redis_client import Client, open_client
from support.poll import until
from support.servers import ValkeyServer
from support.vector_index import (
    DIMENSIONS,
    TENANT,
    MemoryCatalogue,
    VectorIndexConformance,
    item,
    unit,
)

pytestmark = pytest.mark.integration


class TestVectorSets(VectorIndexConformance):
    # Vectors are kept with 8 bits a dimension.
    RECALL = 0.9

    @pytest.fixture
    async def index(self, redis8_url: str) -> AsyncIterator[VectorSetIndex]:
        client = open_client(redis8_url, max_connections=16, connect_seconds=2)
        prefix = f"test:{uuid.uuid4().hex[:8]}"
        index = VectorSetIndex(client, DIMENSIONS, prefix=prefix, max_items=self.MAX_ITEMS)
        await index.probe()
        yield index
        for tenant in (TENANT, "globex"):
            await index.drop(tenant)
        await client.aclose()


async def test_vector_sets_expire_when_nothing_is_added_any_more(redis8_url: str) -> None:
    client = open_client(redis8_url, max_connections=4, connect_seconds=2)
    prefix = f"test:{uuid.uuid4().hex[:8]}"
    index = VectorSetIndex(client, DIMENSIONS, prefix=prefix, life_seconds=500)
    await index.add(item("a", unit(1)))
    keys = [key async for key in client.scan_iter(f"{prefix}*")]
    assert len(keys) == 2
    for key in keys:
        assert 0 < await client.pttl(key) <= 500_000
    await index.drop(TENANT)
    await client.aclose()


async def test_a_redis_without_vector_sets_is_told_apart(valkey_server: ValkeyServer) -> None:
    client = open_client(valkey_server.url, max_connections=4, connect_seconds=2)
    index = VectorSetIndex(client, DIMENSIONS)
    with pytest.raises(IndexUnavailable) as told:
        await index.probe()
    assert told.value.reason == "vector_sets_missing"
    with pytest.raises(IndexUnavailable):
        await index.add(item("a", unit(1)))
    valkey_server.kill()
    with pytest.raises(IndexUnavailable) as told:
        await index.probe()
    assert told.value.reason == "index_unavailable"
    await client.aclose()


async def test_without_vector_sets_the_local_index_takes_their_place(
    valkey_server: ValkeyServer,
) -> None:
    client = open_client(valkey_server.url, max_connections=4, connect_seconds=2)
    sets = VectorSetIndex(client, DIMENSIONS)
    local = LocalIndex(DIMENSIONS)

    async def ready() -> None:
        return

    index = CheckedIndex(
        [("vector_sets", sets, sets.probe), ("local", local, ready)], DIMENSIONS, replica="one"
    )
    await index.start()
    assert index.name == "local"
    await index.add(item("a", unit(1)))
    assert await index.nearest(TENANT, "s", unit(1), 1)
    await index.close()
    await client.aclose()


MakeFollowed = Callable[..., FollowedIndex]


@pytest.fixture
async def client(valkey_server: ValkeyServer) -> AsyncIterator[Client]:
    client = open_client(valkey_server.url, max_connections=16, connect_seconds=2)
    yield client
    await client.aclose()


@pytest.fixture
async def catalogue() -> MemoryCatalogue:
    return MemoryCatalogue()


@pytest.fixture
async def make(client: Client, catalogue: MemoryCatalogue) -> AsyncIterator[MakeFollowed]:
    """Makes replicas that follow one stream and are compared with one store."""
    made: list[FollowedIndex] = []

    def replica(**more: float) -> FollowedIndex:
        followed = FollowedIndex(
            LocalIndex(DIMENSIONS, max_items=VectorIndexConformance.MAX_ITEMS, graph_above=700),
            Feed(client, "test", f"replica-{len(made)}"),
            catalogue,
            read_seconds=0.05,
            pause_seconds=0.05,
            **more,
        )
        made.append(followed)
        return followed

    yield replica
    for followed in made:
        await followed.close()


class TestFollowed(VectorIndexConformance):
    RECALL = 0.95

    @pytest.fixture
    async def index(self, make: MakeFollowed) -> FollowedIndex:
        # Not started: what it is compared with is empty here, on purpose.
        return make()


async def started(make: MakeFollowed, **more: float) -> FollowedIndex:
    followed = make(**more)
    await followed.start()
    await until(followed.built.is_set, what="the index to be built")
    return followed


async def finds(index: FollowedIndex, entry_id: str, space: str = "s") -> bool:
    found = await index.nearest(TENANT, space, unit(1), 50)
    return entry_id in {nominee.entry_id for nominee in found}


async def test_replicas_converge_on_what_one_of_them_is_told(
    make: MakeFollowed, catalogue: MemoryCatalogue
) -> None:
    one, two = await started(make), await started(make)
    for number in range(20):
        catalogue.put(added := item(f"e{number}", unit(1, number / 10)))
        await one.add(added)
    await until(two.count, what="the other replica to hear of it")

    async def all_there() -> bool:
        return await two.count() == 20

    await until(all_there)
    del catalogue.held[TENANT]["e3"]
    await two.remove([Place(TENANT, "s", "e3")])

    async def gone() -> bool:
        return not await finds(one, "e3")

    await until(gone, what="the first replica to forget it")
    catalogue.held.clear()
    await one.drop(TENANT)

    async def empty() -> bool:
        return await two.count() == 0

    await until(empty)


async def test_a_replica_that_starts_late_is_built_from_the_store(
    make: MakeFollowed, catalogue: MemoryCatalogue
) -> None:
    for number in range(500):
        catalogue.put(item(f"e{number}", unit(1, number / 100), space=f"s{number % 3}"))
    index = await started(make)
    assert await index.count() == 500


async def test_what_was_missed_is_mended_by_comparing(
    make: MakeFollowed, catalogue: MemoryCatalogue
) -> None:
    index = await started(make, reconcile_seconds=0.1)
    catalogue.put(item("stored elsewhere", unit(1)))

    async def found() -> bool:
        return await finds(index, "stored elsewhere")

    await until(found)
    catalogue.held.clear()

    async def forgotten() -> bool:
        return await index.count() == 0

    await until(forgotten)


async def test_a_gap_in_the_stream_is_noticed_and_mended(
    make: MakeFollowed, catalogue: MemoryCatalogue, client: Client
) -> None:
    writer = await started(make)
    catalogue.put(first := item("first", unit(1)))
    await writer.add(first)
    reader = await started(make)
    catalogue.put(item("lost event", unit(1, 0.1)))
    raw: redis_asyncio.Redis = client
    # As if so much was written while the reader slept that its place is gone.
    catalogue.put(last := item("last", unit(1, 0.2)))
    async with raw.pipeline(transaction=True) as tx:
        tx.execute_command("XTRIM", "test:index", "MAXLEN", 0)
        tx.execute_command("XADD", "test:index", "*", "o", "remove", "t", "x", "s", "x", "i", "x")
        await tx.execute()
    await writer.add(last)

    async def whole() -> bool:
        return await reader.count() == 3

    await until(whole, what="the reader to compare itself with the store")


async def test_a_redis_that_comes_back_empty_ends_in_an_index_that_follows_again(
    make: MakeFollowed, catalogue: MemoryCatalogue, valkey_server: ValkeyServer
) -> None:
    one, two = await started(make), await started(make)
    catalogue.put(added := item("before", unit(1)))
    await one.add(added)
    valkey_server.kill()
    # Adding goes on, and fails nobody.
    catalogue.put(meanwhile := item("meanwhile", unit(1, 0.1)))
    await one.add(meanwhile)
    valkey_server.start()

    async def mended() -> bool:
        return await two.count() == 2

    await until(mended, what="the other replica to compare itself with the store")
    catalogue.put(after := item("after", unit(1, 0.2)))
    await one.add(after)

    async def following() -> bool:
        return await two.count() == 3

    await until(following)


async def test_damaged_events_and_those_of_another_model_are_passed_over(
    make: MakeFollowed, catalogue: MemoryCatalogue, client: Client
) -> None:
    index = await started(make)
    for vector in (b"", b"123", b"\x00" * 8, b"\x00" * 4 * DIMENSIONS):
        await client.execute_command(
            *("XADD", "test:index", "*", "o", "add", "t", TENANT, "s", "s"),
            *("i", "odd", "v", vector, "b", "somebody"),
        )
    await client.execute_command("XADD", "test:index", "*", "who", "knows")
    other = await started(make)
    catalogue.put(sound := item("sound", unit(1)))
    await other.add(sound)

    async def found() -> bool:
        return await finds(index, "sound")

    await until(found)
    assert not await finds(index, "odd")
