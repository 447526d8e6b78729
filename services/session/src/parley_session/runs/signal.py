"""Stopping a run from outside, at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum


class Stop(StrEnum):
    """Why a run is to stop."""

    # Its user asked for it: what there is is kept.
    CANCELLED = "cancelled"
    # Its deadline has passed: what there is is kept.
    TIMED_OUT = "timed_out"
    # Another attempt has it: nothing more is written.
    FENCED = "fenced"
    # Its chat was deleted: nothing more is written.
    DELETED = "deleted"


class Interrupted(Exception):
    """The body of `StopSignal.until` was stopped."""

    def __init__(self, reason: Stop) -> None:
        super().__init__(reason)
        self.reason = reason


class StopSignal:
    """Interrupts the body of `until`, at once when it is inside, else when it enters."""

    def __init__(self) -> None:
        self._reason: Stop | None = None
        self._scope: asyncio.Timeout | None = None

    @property
    def reason(self) -> Stop | None:
        """The reason given first."""
        return self._reason

    def stop(self, reason: Stop) -> None:
        """Ask to stop; the first reason stands."""
        if self._reason is None:
            self._reason = reason
            self._interrupt()

    @asynccontextmanager
    async def until(self, when: float) -> AsyncIterator[None]:
        """Run the body until the loop's time is `when`, or until `stop`.

        Raises Interrupted for either. The body costs nothing more for it: it is
        cancelled as by `asyncio.timeout`, whose mechanism this is.
        """
        if self._reason is not None:
            raise Interrupted(self._reason)
        if when <= asyncio.get_running_loop().time():
            raise Interrupted(Stop.TIMED_OUT)
        scope = asyncio.timeout_at(when)
        try:
            async with scope:
                self._scope = scope
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise Interrupted(self._reason or Stop.TIMED_OUT) from None
        finally:
            self._scope = None

    def _interrupt(self) -> None:
        scope = self._scope
        if scope is not None and not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())
