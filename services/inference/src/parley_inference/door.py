"""The door: who is inside, who waits, and when it is shut."""

import asyncio
import time
from collections import deque
from types import TracebackType
from typing import Final

from parley_inference import metrics
from parley_inference.errors import engine_unavailable, invalid, overloaded
from parley_kit.errors import FieldError

# Tokens per second are measured over this time.
_RATE_SECONDS: Final = 5.0


class Ticket:
    """One request inside the door; leaving the ``with`` block takes it out."""

    def __init__(self, door: "Door", request_id: str) -> None:
        self._door = door
        self._request_id = request_id
        self._prompt_tokens = 0
        self._started = False

    def prompt(self, tokens: int) -> None:
        """The prompt is known to have so many tokens."""
        self._prompt_tokens = tokens
        self._door._queue_tokens(tokens)

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
        self._door._leave(
            self._request_id, started=self._started, prompt_tokens=self._prompt_tokens
        )


class Door:
    """Counts requests and lets no more in than may run and wait."""

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
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
        """Let nobody in any more."""
        self.shut = why
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

    def _queue_tokens(self, tokens: int) -> None:
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
