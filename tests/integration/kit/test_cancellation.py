"""Who leaves is noticed at once, on both ends, with tracing on."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from parley_kit.errors import ServiceError
from parley_kit.rpc import tracing
from parley_kit.rpc.client import call_unary, open_stream
from support.echo import COUNT, SAY, echo_server, text
from support.poll import until

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


class Endless:
    """A handler that streams until it is stopped, and says how it was."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.raised: type[BaseException] | None = None

    async def say(self, _request: Any, _context: Any) -> StringValue:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            self.raised = type(error)
            raise
        finally:
            self.ended.set()
        raise AssertionError

    async def count(self, _request: Any, _context: Any) -> AsyncIterator[StringValue]:
        self.begun.set()
        try:
            while True:
                yield text("a")
                await asyncio.sleep(0)
        except BaseException as error:
            self.raised = type(error)
            raise
        finally:
            self.ended.set()


async def test_cancelling_a_task_cancels_its_unary_call_and_the_handler(
    spans: InMemorySpanExporter,
) -> None:
    endless = Endless()
    async with echo_server(endless.say) as echo:
        task = asyncio.create_task(call_unary(echo.stub.Say, text(""), timeout=60))
        await endless.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(endless.ended.is_set)
        assert endless.raised is asyncio.CancelledError
        await until(lambda: len(spans.get_finished_spans()) == 2)
    assert {span.name for span in spans.get_finished_spans()} == {SAY}
    assert {
        (span.attributes or {})["rpc.response.status_code"] for span in spans.get_finished_spans()
    } == {"CANCELLED"}


async def test_cancelling_the_task_that_reads_a_stream_ends_the_handler() -> None:
    endless = Endless()
    async with echo_server(count=endless.count) as echo:
        received = asyncio.Event()

        async def consume() -> None:
            async for _ in open_stream(echo.stub.Count, text(""), timeout=60):
                received.set()

        task = asyncio.create_task(consume())
        await received.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(endless.ended.is_set)
        await until(lambda: echo.server.in_flight == 0)


async def test_cancelling_a_stream_ends_the_handler_and_tells_its_reader(
    spans: InMemorySpanExporter,
) -> None:
    endless = Endless()
    async with echo_server(count=endless.count) as echo:
        stream = open_stream(echo.stub.Count, text(""), timeout=60)
        received = asyncio.Event()

        async def consume() -> None:
            async for _ in stream:
                received.set()

        task = asyncio.create_task(consume())
        await received.wait()
        stream.cancel()
        with pytest.raises(ServiceError) as caught:
            await task
        assert (caught.value.status, caught.value.code) == (
            grpc.StatusCode.CANCELLED,
            "cancelled",
        )
        assert stream.done()
        await until(endless.ended.is_set)
        await until(lambda: len(spans.get_finished_spans()) == 2)


async def test_a_stream_cancelled_before_it_was_read_is_told_too() -> None:
    async with echo_server(count=Endless().count) as echo:
        stream = open_stream(echo.stub.Count, text(""), timeout=60)
        stream.cancel()
        with pytest.raises(ServiceError, match="cancelled"):
            await anext(stream)


async def test_a_timeout_around_a_call_is_the_timeout_s() -> None:
    endless = Endless()
    async with echo_server(endless.say) as echo:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await call_unary(echo.stub.Say, text(""), timeout=60)
        await until(endless.ended.is_set)


async def test_a_blocked_writer_is_cancelled_and_its_generator_cleaned_up_in_its_task() -> None:
    cleaned: list[asyncio.Task[Any] | None] = []
    tasks: list[asyncio.Task[Any] | None] = []

    async def count(_request: Any, _context: Any) -> AsyncIterator[StringValue]:
        tasks.append(asyncio.current_task())
        try:
            while True:
                # Nobody reads: flow control blocks the write, not this line.
                yield text("x" * 60_000)
        finally:
            cleaned.append(asyncio.current_task())

    async with echo_server(count=count) as echo:
        stream = open_stream(echo.stub.Count, text(""), timeout=60)
        assert (await anext(stream)).value
        stream.cancel()
        await until(lambda: cleaned)
        assert cleaned == tasks


async def test_of_a_hundred_streams_ten_leave_and_the_others_finish() -> None:
    async with echo_server() as echo:

        async def consume(number: int) -> int:
            stream = open_stream(echo.stub.Count, text("200"), timeout=30)
            seen = 0
            async for _ in stream:
                seen += 1
                if number % 10 == 0 and seen == 5:
                    stream.cancel()
                    break
            return seen

        counts = await asyncio.gather(*(consume(number) for number in range(100)))
        assert counts.count(200) == 90
        assert counts.count(5) == 10
        await until(lambda: echo.server.in_flight == 0)


async def test_a_stream_makes_one_span_an_end_however_long_it_is(
    spans: InMemorySpanExporter,
) -> None:
    async with echo_server() as echo:
        async for _ in open_stream(echo.stub.Count, text("500"), timeout=30):
            pass
        await until(lambda: len(spans.get_finished_spans()) >= 2)
    server, client = sorted(spans.get_finished_spans(), key=lambda span: span.kind.name != "SERVER")
    assert (server.name, client.name) == (COUNT, COUNT)
    assert server.parent is not None
    assert client.context is not None
    assert server.parent.span_id == client.context.span_id
    assert len(spans.get_finished_spans()) == 2


async def test_the_handler_runs_within_the_server_s_span(spans: InMemorySpanExporter) -> None:
    inside: list[int] = []

    async def count(_request: Any, _context: Any) -> AsyncIterator[StringValue]:
        inside.append(trace.get_current_span().get_span_context().span_id)
        yield text("a")
        inside.append(trace.get_current_span().get_span_context().span_id)

    async with echo_server(count=count) as echo:
        async for _ in open_stream(echo.stub.Count, text(""), timeout=30):
            pass
        await until(lambda: len(spans.get_finished_spans()) == 2)
    server = next(span for span in spans.get_finished_spans() if span.kind.name == "SERVER")
    assert server.context is not None
    assert inside == [server.context.span_id] * 2
    assert not trace.get_current_span().get_span_context().is_valid
