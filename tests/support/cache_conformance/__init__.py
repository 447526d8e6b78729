"""What any cache store must do: one suite, run against each of them."""

from __future__ import annotations

import pytest

from support.cache_conformance.askers import Askers
from support.cache_conformance.bounds import Bounds
from support.cache_conformance.entries import Entries
from support.cache_conformance.invalidation import Invalidation
from support.cache_conformance.recalling import Recalling
from support.cache_store import Clock


class StoreConformance(Entries, Invalidation, Bounds, Recalling, Askers):
    """Derive, and give the fixture `make_store`."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()
