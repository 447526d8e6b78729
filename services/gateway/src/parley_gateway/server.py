"""uvicorn, run inside the gateway's own event loop and by its own signals."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from parley_gateway.config import GatewaySettings
from parley_gateway.web.protocol import HeadBounds, bounded_protocol
from parley_kit.errors import AddressInUse, StartupError

_BACKLOG = 2048


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the process: it turns readiness off first."""
        yield


class HttpServer:
    """Serves the application on one port."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._host = settings.host
        self._port = settings.port
        protocol = bounded_protocol(
            HeadBounds(
                max_bytes=settings.max_head_bytes,
                max_headers=settings.max_headers,
                seconds=settings.head_timeout_seconds,
                max_connections=settings.max_connections,
            )
        )
        self._config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=settings.keep_alive_seconds,
        )
        self._server = _Server(self._config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Bind and serve; return the port. Raises AddressInUse or StartupError."""
        bound = await asyncio.to_thread(_bind, self._host, self._port)
        port: int = bound.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[bound]))
        return port

    async def stop(self, grace: float) -> None:
        """Take no new connection, let answers in progress end for ``grace`` seconds."""
        if self._serving is None:
            return
        self._config.timeout_graceful_shutdown = max(1, round(grace))
        self._server.should_exit = True
        await self._serving

    async def wait_failed(self) -> None:
        """Wait until the server ends by itself, which it does only when it fails."""
        if self._serving is not None:
            await asyncio.shield(self._serving)


def _bind(host: str, port: int) -> socket.socket:
    """Bind and listen, so that the port is known and taken before anything else starts."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartupError(f"the gateway cannot listen on {host}:{port}: {error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(host, port, "the gateway") from error
        raise StartupError(
            f"the gateway cannot listen on {host}:{port}: {error.strerror or error}"
        ) from error
    return bound
