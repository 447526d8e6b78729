"""Steps between which there is no order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def together(*steps: Coroutine[Any, Any, object]) -> None:
    """Take steps at once; returns when all have ended. Raises what the first of them raised.

    Unlike a TaskGroup it raises that very error, and lets a step go on where another one
    fails: each is repeatable, and one that was cut off would only have to be repeated.
    """
    tasks = [asyncio.create_task(step) for step in steps]
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    for error in [task.exception() for task in tasks]:
        if error is not None:
            raise error
