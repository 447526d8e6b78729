"""What surrounds every handler: the server span, metrics, and errors.

One layer, made once a method and not once a call. It adds nothing to a message:
grpc.aio itself drives a handler that is an async generator by ``async for`` and
``context.write``; the layer is a coroutine that does this loop in its stead, so
there is one loop either way. (An ``async for … yield`` around the handler would
add a generator's step, 50 ns, to each.)
"""

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from parley_kit import metrics
from parley_kit.errors import ServiceError
from parley_kit.inflight import InFlight
from parley_kit.rpc import tracing
from parley_kit.rpc.status import to_trailers

_log = logging.getLogger(__name__)

Handler = Callable[[Any, Any], Any]

_MAKE_HANDLER = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """Wraps the handlers of the services named; others pass as they are.

    ``endless`` methods (full names) last until either side ends them: they are
    not counted in ``in_flight``, and ``end_endless`` ends them.
    """

    def __init__(self, services: frozenset[str], endless: frozenset[str]) -> None:
        self.in_flight = InFlight()
        self._closed = False
        self._endless_calls: set[asyncio.Task[Any]] = set()
        self._services = services
        self._endless = endless
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the wrapped handler of a call, None where there is none."""
        path: str = handler_call_details.method
        wrapped = self._handlers.get(path)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        method = path.removeprefix("/")
        # A method that nobody serves is not kept: its name is the caller's to choose.
        if handler is None or method.partition("/")[0] not in self._services:
            return handler
        wrapped = self._handlers[path] = self._wrap(method, handler)
        return wrapped

    def close(self) -> None:
        """Refuse new calls, before their handlers see them: UNAVAILABLE ``unavailable``."""
        self._closed = True

    def is_closed(self) -> bool:
        """Whether new calls are refused."""
        return self._closed

    def end_endless(self) -> None:
        """End the endless streams in progress, likewise UNAVAILABLE. Close first."""
        for task in self._endless_calls:
            task.cancel()

    def _wrap(self, method: str, handler: Any) -> Any:
        behaviour = (
            handler.stream_unary or handler.stream_stream
            if handler.request_streaming
            else handler.unary_unary or handler.unary_stream
        )
        make = _MAKE_HANDLER[(handler.request_streaming, handler.response_streaming)]
        return make(
            self._surround(method, behaviour),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _surround(self, method: str, behaviour: Handler) -> Handler:
        is_generator = inspect.isasyncgenfunction(behaviour)
        # The generated base class answers for what a servicer leaves out: by a
        # plain function that raises NotImplementedError.
        left_out = not is_generator and not inspect.iscoroutinefunction(behaviour)
        endless = method in self._endless

        async def serve(request: Any, context: Any) -> Any:
            if self._closed:
                await _abort(context, _stopping())
            self._enter(endless)
            parent = tracing.extract(context.invocation_metadata())
            span = tracing.start_span(method, SpanKind.SERVER, parent)
            # Never detached: the call has a task, and so a context, of its own.
            otel_context.attach(trace.set_span_in_context(span, parent))
            end = metrics.begin_call(
                metrics.RPC_SERVER_SECONDS, metrics.RPC_SERVER_IN_FLIGHT, method
            )
            status, code = "OK", ""
            try:
                if is_generator:
                    await _pump(behaviour(request, context), context)
                    response = None
                else:
                    response = await behaviour(request, context)
                status = tracing.status_name(context.code())
                return response
            except asyncio.CancelledError:
                if not _is_cancelling():
                    # Of a task that the handler awaited, not of this call. grpc.aio
                    # would send no status and leave the caller waiting.
                    status, code = "INTERNAL", "internal"
                    await _fail(method, context)
                if endless and self.is_closed() and not context.cancelled():
                    status, code = "UNAVAILABLE", "unavailable"
                    await _abort(context, _stopping())
                status = "CANCELLED"
                raise
            except grpc.aio.AbortError:
                status = tracing.status_name(context.code())
                raise
            except ServiceError as error:
                status, code = error.status.name, error.code
                await _abort(context, error)
            except NotImplementedError:
                if left_out:
                    status, code = "UNIMPLEMENTED", "unimplemented"
                    await _abort(context, _unimplemented(method))
                status, code = "INTERNAL", "internal"
                await _fail(method, context)
            except Exception:  # noqa: BLE001 - the last line: whatever is left is a defect
                status, code = "INTERNAL", "internal"
                await _fail(method, context)
            finally:
                end(status)
                tracing.end_span(span, SpanKind.SERVER, status, code)

        return serve

    def _enter(self, endless: bool) -> None:
        """Count the call until its task has ended: by then its status is on its way."""
        task = asyncio.current_task()
        assert task is not None, "grpc.aio runs each call in a task"  # noqa: S101
        if endless:
            self._endless_calls.add(task)
            task.add_done_callback(self._endless_calls.discard)
        else:
            self.in_flight.enter()
            task.add_done_callback(lambda _task: self.in_flight.leave())


async def _pump(messages: AsyncGenerator[Any, None], context: Any) -> None:
    write = context.write
    try:
        async for message in messages:
            await write(message)
    finally:
        # A cancellation that strikes in `write` leaves the generator suspended;
        # its cleanup must run now, in this task, not when it is collected.
        await messages.aclose()


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _stopping() -> ServiceError:
    return ServiceError(grpc.StatusCode.UNAVAILABLE, "unavailable", "the server is stopping")


def _unimplemented(method: str) -> ServiceError:
    return ServiceError(
        grpc.StatusCode.UNIMPLEMENTED, "unimplemented", f"{method} is not served here"
    )


async def _fail(method: str, context: Any) -> NoReturn:
    """Log the exception in hand, once, and answer without its words."""
    metrics.RPC_SERVER_DEFECTS.labels(method).inc()
    _log.exception("unexpected error in a call", extra={"rpc_method": method})
    await _abort(
        context,
        ServiceError(grpc.StatusCode.INTERNAL, "internal", "an internal error; see the log"),
    )


async def _abort(context: Any, error: ServiceError) -> NoReturn:
    await context.abort(error.status, error.detail, to_trailers(error))
    raise AssertionError("context.abort returned")
