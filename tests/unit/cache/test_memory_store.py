"""The in-memory twin keeps the store's promises."""

from __future__ import annotations

import pytest

from parley_cache.store.base import Limits
from parley_cache.store.memory import MemoryStore
from support.cache_conformance import StoreConformance
from support.cache_store import LIVES, Clock, MakeStore

ROOMY = Limits(10**9, 10**6, 10**9, 10**6)


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def make_store(self, clock: Clock) -> MakeStore:
        first = MemoryStore(ROOMY, LIVES, clock)

        def make(limits: Limits | None = None) -> MemoryStore:
            store = MemoryStore(limits or ROOMY, LIVES, clock)
            store._tenants = first._tenants  # as two replicas share one Redis
            return store

        return make
