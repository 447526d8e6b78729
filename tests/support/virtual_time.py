"""An event loop whose time passes only when there is nothing else to do.

For programs without input or output: a sleep of an hour takes no time, whatever is due at
one moment is done before the next one, and the same program always runs the same way.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")

# A moment that is later than now, and earlier than anything else that is waited for.
MOMENT = 1e-6


class Stuck(AssertionError):
    """Everything waits for something that nothing can bring about any more."""


class _Selector(selectors.SelectSelector):
    """Lets time pass instead of waiting."""

    def __init__(self, passes: Callable[[float], None]) -> None:
        super().__init__()
        self._passes = passes

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise Stuck
        self._passes(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that begins at 0 seconds."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(_Selector(self._pass))

    def time(self) -> float:
        """Seconds that have passed."""
        return self._seconds

    def _pass(self, seconds: float) -> None:
        self._seconds += max(0.0, seconds)

    def run(self, program: Coroutine[Any, Any, _T]) -> _T:
        """Run a program to its end. Raises Stuck where it has none."""
        return self.run_until_complete(program)

    def settle(self) -> None:
        """Let everything happen that is due now."""
        self.run_until_complete(asyncio.sleep(MOMENT))

    def end(self) -> None:
        """Cancel what is left, and close."""
        left = asyncio.all_tasks(self)
        for task in left:
            task.cancel()
        if left:
            self.run_until_complete(asyncio.wait(left))
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()
