"""The Redis store keeps the store's promises on a real server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from parley_cache.store.base import Limits
from parley_cache.store.redis import RedisStore
from parley_cache.store.redis_client import open_client
from support.cache_conformance import StoreConformance
from support.cache_store import LIVES, Clock, MakeStore

pytestmark = pytest.mark.integration
ROOMY = Limits(10**9, 10**6, 10**9, 10**6)


class TestRedisStore(StoreConformance):
    @pytest.fixture
    async def make_store(self, redis_url: str, clock: Clock) -> AsyncIterator[MakeStore]:
        prefix = f"test:{uuid.uuid4().hex[:8]}"
        opened: list[RedisStore] = []

        def make(limits: Limits | None = None) -> RedisStore:
            client = open_client(redis_url, max_connections=16, connect_seconds=2)
            store = RedisStore(
                client, limits or ROOMY, LIVES, prefix=prefix, sweep_seconds=0.001, clock=clock
            )
            opened.append(store)
            return store

        yield make
        client = open_client(redis_url, max_connections=2, connect_seconds=2)
        async for key in client.scan_iter(f"{prefix}:*", count=1000):
            await client.unlink(key)
        await client.aclose()
        for store in opened:
            await store.close()
