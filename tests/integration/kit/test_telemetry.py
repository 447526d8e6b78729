"""Spans leave a process, join across processes, and never hold it up."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.otlp import Collector, assert_one_trace, assert_tree
from support.ports import free_port

pytestmark = pytest.mark.integration

TESTS = Path(__file__).parents[2]

SERVER = """
import asyncio, logging, sys
from support.echo import echo_server
from parley_kit.logs import setup_logging
from parley_kit.telemetry import setup_telemetry

async def say(request, context):
    logging.getLogger("handler").info("called")
    return request

async def main():
    telemetry = setup_telemetry("server", sys.argv[1])
    setup_logging("server")
    async with echo_server(say) as echo:
        print(echo.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await asyncio.to_thread(telemetry.shutdown)

asyncio.run(main())
"""

CLIENT = """
import asyncio, sys
from opentelemetry import trace
from support.echo import EchoStub, text
from parley_kit.rpc.client import call_unary, open_channel, open_stream
from parley_kit.telemetry import setup_telemetry

async def main():
    telemetry = setup_telemetry("client", sys.argv[1], sample_ratio=float(sys.argv[3]))
    async with open_channel(f"127.0.0.1:{sys.argv[2]}") as channel:
        stub = EchoStub(channel)
        with trace.get_tracer("test").start_as_current_span("work"):
            await call_unary(stub.Say, text("x"), timeout=5)
            async for _ in open_stream(stub.Count, text("300"), timeout=5):
                pass
    await asyncio.to_thread(telemetry.shutdown)

asyncio.run(main())
"""


def command(source: str, *arguments: object) -> list[str]:
    path = f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
    return [sys.executable, "-c", path + source, *map(str, arguments)]


def run_both(endpoint: str, client_endpoint: str, ratio: float) -> str:
    """Run a server and a client as processes, to their end; return the server's log."""
    with subprocess.Popen(
        command(SERVER, endpoint), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        subprocess.run(command(CLIENT, client_endpoint, port, ratio), check=True, timeout=30)
        log, _ = server.communicate(timeout=30)
        assert server.returncode == 0
        return log


def test_a_trace_spans_both_processes_with_one_span_a_call(collector: Collector) -> None:
    log = run_both(collector.endpoint, collector.endpoint, 1.0)
    spans = collector.spans()
    assert_one_trace(spans)
    assert_tree(
        spans,
        """
        client: work
          client: kit.test.Echo/Say [client]
            server: kit.test.Echo/Say [server]
          client: kit.test.Echo/Count [client]
            server: kit.test.Echo/Count [server]
        """,
    )
    say = next(span for span in spans if span.title == "server: kit.test.Echo/Say [server]")
    assert say.attributes["rpc.response.status_code"] == "OK"
    assert f'"trace_id":"{say.trace_id}","span_id":"{say.span_id}"' in log


def test_a_trace_that_is_not_sampled_is_not_sent_by_anyone(collector: Collector) -> None:
    log = run_both(collector.endpoint, collector.endpoint, 0.0)
    assert collector.spans() == []
    assert '"trace_id":"' in log


def test_without_an_endpoint_there_are_ids_for_the_logs_and_no_spans() -> None:
    assert '"trace_id":"' in run_both("", "", 1.0)


def test_a_collector_that_is_not_there_does_not_hold_up_the_end() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "called" in run_both(nobody, nobody, 1.0)
