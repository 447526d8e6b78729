"""The door: who is inside, who waits, whose turn it is, and when it is shut.

The engine is given what it batches and a little more, so that it never waits for the next
request; all others wait here, where a tenant's share decides, and not in the engine's own queue.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Final

from parley_inference import metrics
from parley_inference.errors import engine_unavailable, invalid, overloaded, timed_out
from parley_inference.fair_queue import FairQueue
from parley_kit.errors import FieldError

# Tokens per second are measured over this time.
_RATE_SECONDS: Final = 5.0
# What the engine has beyond its batch, as a share of it.
_AHEAD: Final = 0.25
# Turns after which their pace is believed, and how much of it the latest is.
_PACE_TURNS: Final = 8
_PACE_WEIGHT: Final = 0.1


class Ticket:
    """One request inside the door; leaving the ``with`` block takes it out."""

    def __init__(self, door: "Door", request_id: str) -> None:
        self._door = door
        self._request_id = request_id
        self._prompt_tokens = 0
        self._started = False
        self._entered = False

    def prompt(self, tokens: int) -> None:
        """The prompt is known to have so many tokens. Raises overloaded if too many wait."""
        self._door._queue_tokens(tokens)
        self._prompt_tokens = tokens

    async def turn(self, tenant: str, *, answer_tokens: int, priority: int, seconds: float) -> None:
        """Wait until the engine may have the request; ``answer_tokens``: at most.

        Raises overloaded at once if the wait would be longer than ``seconds``, timed_out if it
        was, engine_unavailable if the engine is lost or the replica stops meanwhile.
        """
        cost = self._prompt_tokens + answer_tokens
        await self._door._turn(tenant, cost=cost, priority=priority, seconds=seconds)
        self._entered = True

    def started(self) -> None:
        """The engine has drawn the first token."""
        self._started = True
        self._door._start(self._prompt_tokens)

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._entered:
            self._door._vacate()
        self._door._leave(
            self._request_id, started=self._started, prompt_tokens=self._prompt_tokens
        )


class Door:
    """Counts requests and lets no more in than may run and wait."""

    def __init__(
        self,
        max_waiting: int,
        *,
        max_queued_tokens: int = 1 << 40,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        """``shares``: of tenants (by their cache salt) that have another share than 1."""
        self.max_waiting = max_waiting
        self._max_queued_tokens = max_queued_tokens
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(shares or {})
        # Requests that the engine has.
        self._entered = 0
        # Seconds between two turns while somebody waits, and of how many turns that is the mean.
        self._pace = 0.0
        self._turns = 0
        self._last_turn = 0.0
        self.max_running = 0
        self.running = 0
        self.waiting = 0
        self.queued_tokens = 0
        # Why nobody is let in; empty: the door is open.
        self.shut = "the engine is starting"
        self.draining = False
        # Tokens drawn since the start of the process.
        self.tokens = 0
        # Grows with every change that a load report shows.
        self.version = 0
        self._inside: set[str] = set()
        self._watchers: set[asyncio.Future[None]] = set()
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], maxlen=64)

    def admit(self, request_id: str) -> Ticket:
        """Let a request in. Raises engine_unavailable, overloaded, or invalid_request."""
        if self.shut:
            metrics.REFUSED.labels("engine_unavailable").inc()
            raise engine_unavailable(self.shut)
        if request_id in self._inside:
            raise invalid(FieldError("request_id", "is in use by another live request"))
        if len(self._inside) >= self.max_running + self.max_waiting:
            metrics.REFUSED.labels("overloaded").inc()
            raise overloaded()
        self._inside.add(request_id)
        self.waiting += 1
        self._changed()
        return Ticket(self, request_id)

    def open(self, max_running: int) -> None:
        """Let requests in."""
        self.max_running = max_running
        self.shut = ""
        self._changed()

    def close(self, why: str) -> None:
        """Let nobody in any more; those who wait for their turn are sent elsewhere."""
        self.shut = why
        while self._queue:
            waiter = self._queue.take()
            if not waiter.done():
                waiter.set_exception(engine_unavailable(why))
        self._changed()

    def drain(self) -> None:
        """Tell watchers that no new request is wanted; those that come are still served."""
        self.draining = True
        self._changed()

    async def change(self, version: int, timeout: float) -> None:
        """Wait until the load differs from that of ``version``, for ``timeout`` s at most."""
        if self.version != version or timeout <= 0:
            return
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.add(watcher)
        try:
            async with asyncio.timeout(timeout):
                await watcher
        except TimeoutError:
            return
        finally:
            self._watchers.discard(watcher)

    def tokens_per_second(self) -> float:
        """Tokens drawn per second over the last few seconds."""
        now = time.monotonic()
        while len(self._samples) > 1 and now - self._samples[1][0] >= _RATE_SECONDS:
            self._samples.popleft()
        if now - self._samples[-1][0] >= 0.25:
            self._samples.append((now, self.tokens))
        since, before = self._samples[0]
        return (self.tokens - before) / max(now - since, 0.25)

    def expected_wait(self, tenant: str, priority: int) -> float:
        """Seconds that a new request would wait for its turn, by the latest turns; 0: unknown."""
        if self._entered < self._places() or self._turns < _PACE_TURNS:
            return 0.0
        return self._pace * (self._queue.ahead(tenant, priority) + 1)

    async def _turn(self, tenant: str, *, cost: float, priority: int, seconds: float) -> None:
        if self._entered < self._places() and not self._queue:
            self._entered += 1
            return
        wait = self.expected_wait(tenant, priority)
        if wait > seconds:
            metrics.REFUSED.labels("deadline").inc()
            raise overloaded("the deadline would pass before the request's turn", wait)
        if not self._queue:
            self._last_turn = time.monotonic()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        number = self._queue.put(waiter, tenant, cost=cost, priority=priority)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError as error:
            self._give_back(waiter)
            raise timed_out() from error
        except asyncio.CancelledError:
            self._give_back(waiter)
            raise
        finally:
            self._queue.remove(number)

    def _give_back(self, waiter: asyncio.Future[None]) -> None:
        """Somebody left at the very moment of their turn: it is the next one's."""
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self._vacate()

    def _vacate(self) -> None:
        """One request less in the engine: the next one's turn."""
        self._entered -= 1
        while self._queue and self._entered < self._places():
            waiter = self._queue.take()
            if waiter.done():
                continue
            waiter.set_result(None)
            self._entered += 1
            self._note_turn()

    def _note_turn(self) -> None:
        now = time.monotonic()
        took, self._last_turn = now - self._last_turn, now
        self._turns += 1
        weight = max(_PACE_WEIGHT, 1 / self._turns)
        self._pace += weight * (took - self._pace)

    def _places(self) -> int:
        return self.max_running + int(self.max_running * _AHEAD)

    def _queue_tokens(self, tokens: int) -> None:
        # One that waits alone is let in, however long.
        if self.queued_tokens and self.queued_tokens + tokens > self._max_queued_tokens:
            metrics.REFUSED.labels("queued_tokens").inc()
            raise overloaded("as many tokens wait as may")
        self.queued_tokens += tokens
        self._changed()

    def _start(self, prompt_tokens: int) -> None:
        self.waiting -= 1
        self.running += 1
        self.queued_tokens -= prompt_tokens
        self._changed()

    def _leave(self, request_id: str, *, started: bool, prompt_tokens: int) -> None:
        self._inside.discard(request_id)
        if started:
            self.running -= 1
        else:
            self.waiting -= 1
            self.queued_tokens -= prompt_tokens
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        metrics.RUNNING.set(self.running)
        metrics.WAITING.set(self.waiting)
        metrics.QUEUED_TOKENS.set(self.queued_tokens)
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)
        self._watchers.clear()
