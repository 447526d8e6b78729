"""The admin port: /metrics, /healthz, /readyz.

An HTTP/1.1 server of its own on the service's event loop, rather than
prometheus_client's threaded one: /healthz then says that the loop turns, a
stuck client is dropped after a few seconds, and the number of connections is
bounded. Services without a web framework need none. Each response closes its
connection; only the rendering of the metrics leaves the loop's thread.
"""

import asyncio
import errno
import logging
from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder

from parley_kit.errors import AddressInUse, StartupError
from parley_kit.tasks import TASK_COUNTS

_log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 8192
MAX_CONNECTIONS = 32
# Seconds for a whole exchange: reading the request, rendering, writing.
EXCHANGE_SECONDS = 10.0

_TEXT = "text/plain; charset=utf-8"


class _Refusal(Exception):
    def __init__(self, status: str, headers: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers


class AdminServer:
    """Serves GET and HEAD of /metrics, /healthz (the loop turns) and /readyz.

    ``ready`` is asked on each /readyz: 200 or 503; ``why``, when it is 503, what to tell people.
    Neither may block.
    """

    def __init__(
        self,
        host: str,
        port: int,
        ready: Callable[[], bool],
        registry: CollectorRegistry = REGISTRY,
        why: Callable[[], str] = lambda: "",
    ) -> None:
        self._host = host
        self._port = port
        self._ready = ready
        self._why = why
        self._registry = registry
        self._server: asyncio.Server | None = None
        self._exchanges: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; return the port. Raises AddressInUse or StartupError."""
        try:
            self._server = await asyncio.start_server(
                self._accept, self._host, self._port, limit=MAX_HEAD_BYTES
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(self._host, self._port, "the admin server") from error
            raise StartupError(
                f"the admin server cannot listen on {self._host}:{self._port}: "
                f"{error.strerror or error}"
            ) from error
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening and end all exchanges."""
        if self._server is None:
            return
        self._server.close()
        for task in self._exchanges:
            task.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._exchanges) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._exchange(reader, writer))
        self._exchanges.add(task)
        task.add_done_callback(self._exchanges.discard)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS):
                writer.write(await self._answer(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, ConnectionError):
            _log.debug("an admin client went away or was too slow")
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        with_body = True
        headers = ""
        try:
            method, path, accept = await _read_request(reader)
            with_body = method != "HEAD"
            status, content_type, body = await self._route(method, path, accept)
        except _Refusal as refusal:
            status, content_type, headers = refusal.status, _TEXT, refusal.headers
            body = f"{refusal.status}\n".encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n{headers}"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (body if with_body else b"")

    async def _route(self, method: str, path: str, accept: str) -> tuple[str, str, bytes]:
        if path not in ("/metrics", "/healthz", "/readyz"):
            raise _Refusal("404 Not Found")
        if method not in ("GET", "HEAD"):
            raise _Refusal("405 Method Not Allowed", "Allow: GET, HEAD\r\n")
        if path == "/healthz":
            return "200 OK", _TEXT, b"ok\n"
        if path == "/readyz":
            if self._ready():
                return "200 OK", _TEXT, b"ready\n"
            why = self._why()
            body = f"not ready: {why}\n" if why else "not ready\n"
            return "503 Service Unavailable", _TEXT, body.encode()
        TASK_COUNTS.look()
        encode, content_type = choose_encoder(accept)
        return "200 OK", content_type, await asyncio.to_thread(encode, self._registry)


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, str]:
    """Return method, path without query, and the Accept header."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise _Refusal("431 Request Header Fields Too Large") from error
    except asyncio.IncompleteReadError as error:
        raise _Refusal("400 Bad Request") from error
    line, *fields = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    parts = line.split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise _Refusal("400 Bad Request")
    headers: dict[str, str] = {}
    for item in fields:
        name, colon, value = item.partition(":")
        if not colon or not name or name != name.strip():
            raise _Refusal("400 Bad Request")
        headers[name.lower()] = value.strip()
    if parts[2] == "HTTP/1.1" and "host" not in headers:
        raise _Refusal("400 Bad Request")
    return parts[0], parts[1].partition("?")[0], headers.get("accept", "")
