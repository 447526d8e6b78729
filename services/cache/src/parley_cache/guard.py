"""What stands between a call and the store: time-outs, a breaker, telemetry.

A store that is slow costs a caller at most its budget, and after a few failures
in a row nothing: the breaker answers at once, and lets one call through now and
then to see whether the store is back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from parley_cache import metrics
from parley_cache.store.base import StoreFull, StoreUnavailable
from parley_kit import semconv

_tracer = trace.get_tracer(__name__)

_FAIR_SECONDS = 0.02
"""A budget below this says more of the caller than of the store when it runs out."""


class Breaker:
    """Counts failures in a row, and says whether trying is worth it.

    Args:
        failures: so many in a row open it.
        seconds: after so long one call is let through.
        clock: monotonic seconds.
    """

    def __init__(
        self, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures = failures
        self._seconds = seconds
        self._clock = clock
        self._in_a_row = 0
        self._retry_at = 0.0

    @property
    def open(self) -> bool:
        """Whether calls are kept from the store."""
        return self._in_a_row >= self._failures

    def allow(self) -> bool:
        """Say whether this call may try; a probe's turn is taken by asking."""
        if not self.open:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._seconds
        return True

    def succeeded(self) -> None:
        """Note that the store answered."""
        self._in_a_row = 0

    def failed(self) -> None:
        """Note that the store did not answer."""
        self._in_a_row += 1
        if self._in_a_row == self._failures:
            self._retry_at = self._clock() + self._seconds


class StoreGuard:
    """Surrounds operations on the store.

    Args:
        breaker: shared by all of them.
    """

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        metrics.STORE_UP.set(1)

    @asynccontextmanager
    async def operation(
        self, name: str, seconds: float, *, always: bool = False
    ) -> AsyncIterator[None]:
        """Run the block for at most `seconds`.

        Args:
            name: of the operation, for metrics and the span.
            seconds: its budget.
            always: try even while the breaker is open.

        Raises:
            StoreUnavailable: out of time, the store failed, or the breaker is open.
        """
        if not self._breaker.allow() and not always:
            metrics.STORE_SECONDS.labels(name, "skipped").observe(0.0)
            raise StoreUnavailable("the store did not answer lately")
        began = time.perf_counter()
        outcome = "cancelled"
        with _tracer.start_as_current_span(
            f"redis {name}",
            kind=SpanKind.CLIENT,
            attributes={semconv.DB_SYSTEM_NAME: "redis", semconv.DB_OPERATION_NAME: name},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                async with asyncio.timeout(seconds):
                    yield
                outcome = "ok"
                self._note(answered=True)
            except StoreFull:
                outcome = "full"
                self._note(answered=True)
                raise
            except (StoreUnavailable, TimeoutError) as exc:
                timed_out = isinstance(exc, TimeoutError)
                outcome = "timeout" if timed_out else "unavailable"
                span.set_attribute(semconv.ERROR_TYPE, outcome)
                span.set_status(Status(StatusCode.ERROR, outcome))
                if not timed_out or seconds >= _FAIR_SECONDS:
                    self._note(answered=False)
                if timed_out:
                    raise StoreUnavailable("the store did not answer in time") from exc
                raise
            finally:
                metrics.STORE_SECONDS.labels(name, outcome).observe(time.perf_counter() - began)

    def _note(self, *, answered: bool) -> None:
        if answered:
            self._breaker.succeeded()
        else:
            self._breaker.failed()
        metrics.STORE_UP.set(0 if self._breaker.open else 1)
