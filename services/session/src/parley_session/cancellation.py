"""Cancellations that a library has lost.

`asyncio.wait_for` of Python 3.11, which database drivers send with, drops a
cancellation that arrives just as it is done. The task then goes on, uncancelled, for
as long as its next wait lasts.
"""

from __future__ import annotations

import asyncio


class CancellationWatch:
    """Knows whether the current task was cancelled since this was made."""

    __slots__ = ("_before", "_task")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._before = self._task.cancelling() if self._task else 0

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for it, although no CancelledError may have come."""
        return self._task is not None and self._task.cancelling() > self._before

    def check(self) -> None:
        """Raise the CancelledError that was lost, if one was."""
        if self.cancelled:
            raise asyncio.CancelledError
