"""A trace collector for tests: takes spans by OTLP over gRPC and keeps them.

It is a real server on a port of its own, for services in other processes as
well as in this one. ``draw`` shows a trace as text, which is also how to assert
one::

    session: parley.inference.v1.InferenceService/Generate [client]
      inference: parley.inference.v1.InferenceService/Generate [server]
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from support.poll import until, until_sync

_KINDS = {
    trace_pb2.Span.SPAN_KIND_INTERNAL: "internal",
    trace_pb2.Span.SPAN_KIND_SERVER: "server",
    trace_pb2.Span.SPAN_KIND_CLIENT: "client",
    trace_pb2.Span.SPAN_KIND_PRODUCER: "producer",
    trace_pb2.Span.SPAN_KIND_CONSUMER: "consumer",
}


@dataclass(frozen=True)
class CollectedSpan:
    """One span as it arrived. Ids are lower-case hex; ``parent_id`` is "" for a root."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    failed: bool
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    events: tuple[str, ...]

    @property
    def title(self) -> str:
        """``service: name [kind]``, the kind left out where it is internal."""
        return f"{self.service}: {self.name}" + (
            "" if self.kind == "internal" else f" [{self.kind}]"
        )


class Collector:
    """The server and what it has received. Start it before the services."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[CollectedSpan] = []
        self._server = grpc.server(ThreadPoolExecutor(2, thread_name_prefix="otlp"))
        register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        register(_Service(self), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    @property
    def endpoint(self) -> str:
        """What a service's OTLP_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve."""
        self._server.start()

    def stop(self) -> None:
        """Stop serving; what was received is kept."""
        self._server.stop(None).wait(5)

    def add(self, spans: Iterable[CollectedSpan]) -> None:
        """Keep spans."""
        with self._lock:
            self._spans.extend(spans)

    def spans(
        self, *, trace_id: str = "", service: str = "", name: str = "", kind: str = ""
    ) -> list[CollectedSpan]:
        """Return the spans received so far that match, in the order of their start."""
        with self._lock:
            found = list(self._spans)
        return sorted(
            (
                span
                for span in found
                if (not trace_id or span.trace_id == trace_id)
                and (not service or span.service == service)
                and (not name or span.name == name)
                and (not kind or span.kind == kind)
            ),
            key=lambda span: span.start_ns,
        )

    def clear(self) -> None:
        """Forget what was received."""
        with self._lock:
            self._spans.clear()

    async def wait_for(
        self, condition: Callable[[list[CollectedSpan]], object], timeout: float = 5.0
    ) -> list[CollectedSpan]:
        """Wait until the spans received satisfy ``condition``; return them all."""
        await until(lambda: condition(self.spans()), timeout, self._what())
        return self.spans()

    def wait_for_sync(
        self, condition: Callable[[list[CollectedSpan]], object], timeout: float = 5.0
    ) -> list[CollectedSpan]:
        """Do as ``wait_for`` where no event loop runs."""
        until_sync(lambda: condition(self.spans()), timeout, self._what())
        return self.spans()

    def _what(self) -> str:
        return "the spans that the test waits for"


class _Service(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:
        self._collector.add(_read(request))
        return trace_service_pb2.ExportTraceServiceResponse()


def _read(request: Any) -> Iterator[CollectedSpan]:
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield CollectedSpan(
                    service=str(resource.get("service.name", "")),
                    name=span.name,
                    kind=_KINDS.get(span.kind, "internal"),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                    attributes=_attributes(span.attributes),
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    events=tuple(event.name for event in span.events),
                )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, which)


def draw(
    spans: Sequence[CollectedSpan], keep: Callable[[CollectedSpan], bool] = lambda _span: True
) -> str:
    """Draw the tree: a span a line, indented under its parent, siblings by their start.

    Where ``keep`` leaves a span out, its children take its place. A span whose
    parent is not among ``spans`` is drawn as a root.
    """
    ids = {span.span_id for span in spans}
    children: dict[str, list[CollectedSpan]] = {}
    for span in sorted(spans, key=lambda span: span.start_ns):
        parent = span.parent_id if span.parent_id in ids else ""
        children.setdefault(parent, []).append(span)
    lines: list[str] = []

    def walk(parent: str, depth: int) -> None:
        for span in children.get(parent, ()):
            kept = keep(span)
            if kept:
                lines.append("  " * depth + span.title)
            walk(span.span_id, depth + kept)

    walk("", 0)
    return "\n".join(lines)


def assert_tree(
    spans: Sequence[CollectedSpan],
    expected: str,
    keep: Callable[[CollectedSpan], bool] = lambda _span: True,
) -> None:
    """Assert that the spans, drawn, are ``expected`` (its indentation as a whole apart)."""
    lines = [line for line in expected.rstrip().splitlines() if line.strip()]
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    wanted = "\n".join(line[margin:].rstrip() for line in lines)
    drawn = draw(spans, keep)
    assert drawn == wanted, f"the trace is\n{drawn}\n\nand not\n{wanted}"


def assert_one_trace(spans: Sequence[CollectedSpan]) -> None:
    """Assert that there is one root, and every other span's parent was received."""
    assert len({span.trace_id for span in spans}) == 1, draw(spans)
    ids = {span.span_id for span in spans}
    roots = [span for span in spans if not span.parent_id]
    lost = [span.title for span in spans if span.parent_id and span.parent_id not in ids]
    assert len(roots) == 1, draw(spans)
    assert not lost, f"parents missing of {lost}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A running collector of the test's own."""
    yield from _collecting()


@pytest.fixture(scope="session")
def vllm_traces() -> Iterator[Collector]:
    """The collector of what `vllm_stack` exports."""
    yield from _collecting()


def _collecting() -> Iterator[Collector]:
    collector = Collector()
    collector.start()
    try:
        yield collector
    finally:
        collector.stop()
