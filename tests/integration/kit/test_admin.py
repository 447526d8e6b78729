"""The admin port answers monitors, and shrugs off everything else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from parley_kit import admin
from parley_kit.admin import AdminServer
from parley_kit.errors import AddressInUse, StartupError
from support.ports import occupied_port

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def serving(
    *, ready: bool = True, registry: CollectorRegistry | None = None, why: str = ""
) -> AsyncIterator[int]:
    server = AdminServer(
        "127.0.0.1", 0, lambda: ready, registry or CollectorRegistry(), why=lambda: why
    )
    port = await server.start()
    try:
        yield port
    finally:
        await server.stop()


async def fetch(port: int, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=5) as client:
        return await client.request(method, f"http://127.0.0.1:{port}{path}", headers=headers)


async def exchange(port: int, request: bytes) -> bytes:
    """Send raw bytes; return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(5):
            writer.write(request)
            with contextlib.suppress(ConnectionError):
                return await reader.read()
            return b""
    finally:
        writer.close()


async def shown_tasks(port: int, kind: str) -> float:
    """How many tasks of a kind /metrics shows; 0: it does not."""
    text = (await fetch(port, "/metrics")).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if (sample.name, sample.labels.get("kind")) == ("parley_asyncio_tasks", kind):
                return sample.value
    return 0


async def test_live_tasks_are_counted_by_kind_and_no_longer_than_they_live() -> None:
    async def linger(end: asyncio.Event) -> None:
        await end.wait()

    kind = linger.__qualname__
    async with serving(registry=REGISTRY) as port:
        assert await shown_tasks(port, kind) == 0
        end = asyncio.Event()
        tasks = [asyncio.create_task(linger(end), name=f"of run {n}") for n in range(3)]
        assert await shown_tasks(port, kind) == 3
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        assert await shown_tasks(port, kind) == 2
        end.set()
        await asyncio.wait(tasks)
        assert await shown_tasks(port, kind) == 0
        assert await shown_tasks(port, AdminServer._exchange.__qualname__) == 0


async def test_metrics_are_shown_as_text_and_as_openmetrics() -> None:
    registry = CollectorRegistry()
    Gauge("depth", "Depth.", registry=registry).set(7)
    async with serving(registry=registry) as port:
        plain = await fetch(port, "/metrics?x=1")
        assert plain.status_code == 200
        assert plain.headers["content-type"].startswith("text/plain")
        assert "depth 7.0" in plain.text
        modern = await fetch(port, "/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert modern.headers["content-type"].startswith("application/openmetrics-text")
        assert modern.text.endswith("# EOF\n")


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_readiness_is_what_the_service_says(ready: bool, status: int) -> None:
    async with serving(ready=ready) as port:
        assert (await fetch(port, "/readyz")).status_code == status
        assert (await fetch(port, "/healthz")).status_code == 200


async def test_who_is_not_ready_says_why() -> None:
    async with serving(ready=False) as port:
        assert (await fetch(port, "/readyz")).text == "not ready\n"
    async with serving(ready=False, why="loading") as port:
        assert (await fetch(port, "/readyz")).text == "not ready: loading\n"


async def test_head_has_no_body() -> None:
    async with serving() as port:
        answer = await exchange(port, b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 3" in head
    assert body == b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b"405"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"GET  /metrics HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/2.0\r\nHost: a\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost : a\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nodd\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x00\xff\xfe\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 10_000 + b"\r\n\r\n", b"431"),
    ],
)
async def test_oddities_are_answered_in_kind(request_: bytes, status: bytes) -> None:
    async with serving() as port:
        answer = await exchange(port, request_)
        assert answer.split(b" ")[1] == status
        assert b"Connection: close" in answer
        assert (await fetch(port, "/healthz")).status_code == 200


async def test_a_client_that_says_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "EXCHANGE_SECONDS", 0.05)
    async with serving() as port:
        assert await exchange(port, b"GET /met") == b""


async def test_the_number_of_connections_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "MAX_CONNECTIONS", 1)
    async with serving() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET ")
        await writer.drain()
        assert await exchange(port, b"GET /healthz HTTP/1.0\r\n\r\n") == b""
        writer.close()


async def test_stopping_ends_open_connections() -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET ")
        await writer.drain()
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_an_address_that_cannot_be_had_is_a_sentence() -> None:
    with (
        occupied_port() as port,
        pytest.raises(AddressInUse, match="the admin server cannot listen"),
    ):
        await AdminServer("127.0.0.1", port, lambda: True).start()
    with pytest.raises(StartupError, match=r"192\.0\.2\.1"):
        await AdminServer("192.0.2.1", 0, lambda: True).start()
