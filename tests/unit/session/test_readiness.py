"""A replica says that it is ready once, and ends if what it does by itself fails."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from parley_session import bootstrap
from parley_session.queue.memory import MemoryRunQueue
from support.session_fakes import FakeFleet


class Endless:
    """Something that a replica does by itself, for as long as it lives."""

    async def run(self, *_: object) -> None:
        await asyncio.Event().wait()


class Parts:
    scheduler = Endless()
    dispatcher = Endless()


class Broken:
    async def prepare(self) -> None:
        message = "a defect"
        raise ZeroDivisionError(message)


class Outside:
    def __init__(self) -> None:
        self.store = Broken()
        self.fleet = FakeFleet()
        self.queue = MemoryRunQueue(monotonic=asyncio.get_running_loop().time)


async def test_a_defect_on_the_way_to_ready_ends_the_replica() -> None:
    ready = False

    def get_ready() -> None:
        nonlocal ready
        ready = True

    async def live() -> None:
        parts = cast(Any, Parts())
        async with (
            asyncio.timeout(5),
            bootstrap._background(cast(Any, Outside()), parts, get_ready),
        ):
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as ended:
        await live()
    assert ended.group_contains(ZeroDivisionError)
    assert not ready
