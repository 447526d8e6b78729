"""A count of calls in progress that can be waited upon."""

import asyncio
import contextlib


class InFlight:
    """Counts calls, and tells when there are none."""

    def __init__(self) -> None:
        self.count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """A call has begun."""
        self.count += 1
        self._idle.clear()

    def leave(self) -> None:
        """A call has ended."""
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait, without a bound of its own, until no call is in flight."""
        await self._idle.wait()

    async def wait_idle_for(self, seconds: float) -> bool:
        """Wait so long at most; whether no call is in flight now."""
        if self.count:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
        return self.count == 0
