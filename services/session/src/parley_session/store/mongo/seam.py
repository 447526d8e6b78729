"""The one seam between the store and the driver: bounds, errors, spans, metrics."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from prometheus_client import Histogram
from pymongo import errors

from parley_kit import semconv
from parley_kit.metrics import STORE_BUCKETS
from parley_session.cancellation import CancellationWatch
from parley_session.store.base import StoreUnavailable

STORE_SECONDS = Histogram(
    "parley_session_store_seconds",
    "Duration of the durable store's operations.",
    ["operation", "outcome"],
    buckets=STORE_BUCKETS,
)

# Server answers that mean "not now", or "not you" (which an operator must mend), and no
# defect of ours: Unauthorized, AuthenticationFailed, MaxTimeMSExpired, ExceededTimeLimit,
# WriteConcernFailed, UnsatisfiableWriteConcern, shutdown, primary gone, snapshot gone.
_TRANSIENT_CODES = frozenset(
    (
        *(13, 18, 50, 64, 89, 91, 100, 112, 189, 246, 262, 317, 8000, 9001),
        *(10058, 10107, 11600, 11602, 13435, 13436),
    )
)

_tracer = trace.get_tracer(__name__)


class Guarded(Protocol):
    """Something whose operations go through a seam."""

    @property
    def seam(self) -> Seam:
        """The seam."""


_Self = TypeVar("_Self", bound=Guarded)
_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class Seam:
    """Bounds each operation in time, and all of them in number."""

    def __init__(self, operation_seconds: float, max_in_flight: int) -> None:
        # The driver's own bound comes first; this one covers motor's waiting threads.
        self._seconds = operation_seconds + 0.25
        self._max_in_flight = max_in_flight
        self._in_flight = 0

    @asynccontextmanager
    async def operation(self, name: str) -> AsyncIterator[None]:
        """Run one operation of the store; raises StoreUnavailable for what the driver says."""
        began = perf_counter()
        outcome = "error"
        caller = CancellationWatch()
        with _tracer.start_as_current_span(
            f"store {name}",
            kind=SpanKind.CLIENT,
            attributes={semconv.DB_SYSTEM_NAME: "mongodb", semconv.DB_OPERATION_NAME: name},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                if self._in_flight >= self._max_in_flight:
                    raise StoreUnavailable("too many operations wait for the store")
                self._in_flight += 1
                try:
                    async with asyncio.timeout(self._seconds):
                        yield
                finally:
                    self._in_flight -= 1
                caller.check()
                outcome = "ok"
            except asyncio.CancelledError:
                outcome = "cancelled"
                raise
            except (errors.PyMongoError, TimeoutError) as error:
                if caller.cancelled:
                    outcome = "cancelled"
                    raise asyncio.CancelledError from error
                if not _means_unavailable(error):
                    raise
                outcome = "unavailable"
                raise StoreUnavailable(f"{name}: {_sentence(error)}") from error
            except StoreUnavailable:
                outcome = "unavailable"
                raise
            finally:
                if outcome in ("error", "unavailable"):
                    span.set_status(Status(StatusCode.ERROR))
                    span.set_attribute(semconv.ERROR_TYPE, outcome)
                STORE_SECONDS.labels(name, outcome).observe(perf_counter() - began)


def operation(
    method: Callable[Concatenate[_Self, _Params], Coroutine[Any, Any, _Result]],
) -> Callable[Concatenate[_Self, _Params], Coroutine[Any, Any, _Result]]:
    """Make a method an operation of the store, named as the method is."""
    name = method.__name__

    @functools.wraps(method)
    async def guarded(self: _Self, /, *args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        async with self.seam.operation(name):
            return await method(self, *args, **kwargs)

    return guarded


def _means_unavailable(error: Exception) -> bool:
    if isinstance(error, errors.OperationFailure):
        if isinstance(error, errors.ExecutionTimeout | errors.WriteConcernError):
            return True
        return error.code in _TRANSIENT_CODES
    # ConfigurationError: what DNS says of an srv URI, which is looked up anew each time.
    away = TimeoutError | errors.ConnectionFailure | errors.ConfigurationError
    return isinstance(error, away) or (isinstance(error, errors.PyMongoError) and error.timeout)


def _sentence(error: Exception) -> str:
    """What happened, without what was asked: a server's message may quote a document."""
    code = getattr(error, "code", None)
    name = type(error).__name__
    return name if code is None else f"{name} {code}"
