"""Waiting out a store that is away, where the caller may not give up yet."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from parley_session.store.base import StoreUnavailable

_T = TypeVar("_T")

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0


async def persistently(operation: Callable[[], Awaitable[_T]]) -> _T:
    """Repeat `operation` while the store is away; the caller bounds the time.

    An operation that raised may have been applied, so it must be repeatable, and its
    caller must know its own work when it meets it.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            return await operation()
        except StoreUnavailable:
            # Jittered, so that the runs of a replica do not come back at once.
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
            pause = min(2 * pause, LONGEST_PAUSE)
