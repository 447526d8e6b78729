"""What an engine draws while the text before it is being written, taken together.

Writing takes a round trip to the log. The events that come meanwhile go on together, so
that writes grow larger and fewer as soon as log, readers or this process are behind; where
they are not, each event goes on by itself and at once: nothing is ever waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from parley.inference.v1 import inference_pb2 as pb

# Events that wait at most; then the engine's call is read no further, and its flow control
# holds the engine's sender back.
MOST_WAITING = 256


class Gathered:
    """The events of one drawing: one task puts, another takes all there are."""

    def __init__(self, events: AsyncGenerator[pb.GenerateResponse, None]) -> None:
        self._events = events
        self._waiting: list[pb.GenerateResponse] = []
        self._changed: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None

    async def read(self) -> None:
        """Read the events to their end, which is told to whoever takes them."""
        try:
            async for event in self._events:
                self._waiting.append(event)
                self._wake()
                if len(self._waiting) >= MOST_WAITING:
                    self._room.clear()
                    await self._room.wait()
        except Exception as error:  # noqa: BLE001 - raised where the events are taken
            self._error = error
        finally:
            self._ended = True
            self._wake()

    async def take(self) -> Sequence[pb.GenerateResponse]:
        """Wait for events; none: that was the end. Raises what reading them raised."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._ended:
                return ()
            self._changed = asyncio.get_running_loop().create_future()
            try:
                await self._changed
            finally:
                self._changed = None
        taken, self._waiting = self._waiting, []
        self._room.set()
        return taken

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)


@asynccontextmanager
async def gathered(events: AsyncGenerator[pb.GenerateResponse, None]) -> AsyncIterator[Gathered]:
    """Read events ahead while the body runs; then they are closed, and so is their call."""
    gathering = Gathered(events)
    reading = asyncio.create_task(gathering.read(), name="events of an engine")
    try:
        yield gathering
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        # At once, not when it is collected: the engine stops with the call.
        await events.aclose()
