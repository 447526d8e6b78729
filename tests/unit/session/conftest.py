"""A world of session replicas for each test."""

from collections.abc import AsyncIterator

import pytest

from support.session_world import World, world


@pytest.fixture(name="world")
async def _world() -> AsyncIterator[World]:
    async with world() as made:
        yield made
