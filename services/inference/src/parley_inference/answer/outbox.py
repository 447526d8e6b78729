"""Between the engine, which is never held up, and the call, which sends at its reader's pace.

The first token leaves at once. After each chunk the outbox lingers, so that the tokens of that
time leave together; a token that comes later than that leaves at once again. The end of the
answer ends any lingering. There is one timer a chunk and none a token. What waits here is bounded
by the answer's own ``max_tokens``.
"""

import asyncio

from parley_inference.answer.assembler import Assembler, Chunk
from parley_inference.engine.base import Step


class Outbox:
    """One answer on its way out: one task puts, another gets."""

    def __init__(self, assembler: Assembler, linger: float) -> None:
        """``linger``: seconds that a chunk collects tokens after the one before it; 0: none."""
        self._assembler = assembler
        self._linger = linger
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._first: Step | None = None
        self._ended = False
        self._error: Exception | None = None

    def put(self, step: Step) -> bool:
        """Add what was drawn. True: a stop string has matched and the answer is over."""
        matched = self._assembler.push(step.token_ids, step.texts)
        if self._first is None:
            self._first = step
            self._wake()
        elif self._timer is None and self._assembler.ready:
            self._wake()
        return matched

    def end(self) -> None:
        """The answer is complete: everything held may leave."""
        self._assembler.flush()
        self._close()

    def fail(self, error: Exception, *, at_once: bool = False) -> None:
        """The answer breaks off. What is ready leaves first, unless ``at_once``."""
        if self._ended and not at_once:
            return
        self._error = error
        if at_once:
            self._assembler.take()
        self._close()

    def close(self) -> None:
        """Nobody reads any more: drop the timer."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def first(self) -> Step:
        """Wait for the first step. Raises what ``fail`` was given if none came."""
        while self._first is None:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._first

    async def get(self) -> Chunk | None:
        """Wait for a chunk; None after the last. Raises what ``fail`` was given."""
        while True:
            if self._timer is None and self._assembler.ready:
                if self._linger > 0 and not self._ended:
                    self._timer = self._loop.call_later(self._linger, self._linger_over)
                return self._assembler.take()
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _linger_over(self) -> None:
        self._timer = None
        if self._assembler.ready:
            self._wake()

    def _close(self) -> None:
        self.close()
        self._wake()
