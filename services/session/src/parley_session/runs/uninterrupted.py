"""Steps that are not left half done when their task is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")

# Seconds that a cancelled task may take to come to the end of such steps.
LONGEST = 10.0


async def uninterrupted(steps: Coroutine[Any, Any, _T]) -> _T:
    """Run `steps` to their end even if this task is cancelled meanwhile; then it is.

    Bounded by `LONGEST` seconds from the cancellation on.
    """
    task = asyncio.create_task(steps)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        done, _ = await asyncio.wait({task}, timeout=LONGEST)
        if not done:
            task.cancel()
            await asyncio.wait({task})
        elif not task.cancelled():
            # Retrieved, so that it is not reported as lost; the cancellation goes first.
            task.exception()
        raise
