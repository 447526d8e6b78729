"""A gRPC server with health, reflection, telemetry and error translation.

Handlers are async methods of the generated servicers: coroutines for unary
calls; for streams either an async generator or a coroutine that awaits
``context.write``: both cost the same. They raise ``ServiceError``; a
``CancelledError`` (the caller has left, or its deadline has passed) must pass.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from parley_kit.errors import AddressInUse, StartupError
from parley_kit.rpc.health import SERVICE as HEALTH
from parley_kit.rpc.health import HealthService
from parley_kit.rpc.interceptor import CallInterceptor
from parley_kit.rpc.options import MAX_MESSAGE_BYTES, server_options
from parley_kit.rpc.security import Security

_log = logging.getLogger(__name__)

# Seconds for the last statuses to leave, once no handler runs.
_FLUSH = 1.0


@dataclass(frozen=True)
class RpcService:
    """One service of a server.

    ``register`` is the generated ``add_…Servicer_to_server`` with its servicer
    bound: ``lambda server: add_CacheServiceServicer_to_server(servicer, server)``.
    ``endless`` names methods whose streams last until either side ends them
    (``WatchLoad``): stopping does not wait for these.
    """

    full_name: str
    register: Callable[[grpc.aio.Server], Any]
    endless: frozenset[str] = field(default_factory=frozenset)


class RpcServer:
    """Serves gRPC on one port; build it inside the running event loop.

    ``max_connection_age`` (seconds): clients behind a plain TCP balancer
    reconnect this often, and so find new replicas; calls in progress have
    ``max_connection_age_grace`` seconds to end on the old connection. ``security``, started:
    TLS; without it plaintext.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        services: Sequence[RpcService],
        security: Security | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_concurrent_calls: int | None = None,
        max_connection_age: float = 600.0,
        max_connection_age_grace: float = 3600.0,
    ) -> None:
        self._host = host
        self._port = port
        self._security = security
        names = [service.full_name for service in services]
        self._stop_lock = asyncio.Lock()
        self._health = HealthService(names)
        self._calls = CallInterceptor(
            frozenset(names),
            frozenset(f"{s.full_name}/{method}" for s in services for method in s.endless),
        )
        self._server = grpc.aio.server(
            interceptors=(self._calls,),
            options=server_options(max_message_bytes, max_connection_age, max_connection_age_grace),
            maximum_concurrent_rpcs=max_concurrent_calls,
        )
        for service in services:
            service.register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*names, HEALTH, reflection.SERVICE_NAME], self._server)

    @property
    def in_flight(self) -> int:
        """Calls being served, endless ones, health and reflection apart."""
        return self._calls.in_flight.count

    @property
    def serving(self) -> bool:
        """Whether health says SERVING."""
        return self._health.serving

    async def start(self) -> int:
        """Bind and serve; return the port. Health says NOT_SERVING until told otherwise.

        Raises AddressInUse, or StartupError for an address that cannot be bound.
        """
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self._port = self._bind(f"{host}:{self._port}")
        except RuntimeError as error:
            raise _explain_bind_failure(self._host, self._port) from error
        await self._server.start()
        return self._port

    def _bind(self, address: str) -> int:
        if self._security is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, self._security.server_credentials())

    def set_serving(self, serving: bool) -> None:
        """Set the health of the server and all its services; watchers are told."""
        self._health.set_serving(serving)

    async def stop(self, grace: float) -> None:
        """Take no new call, let those in progress end for ``grace`` seconds, then cancel them.

        New calls are refused UNAVAILABLE before any handler sees them, so that
        they may be sent elsewhere. Returns as soon as the last one has ended.
        """
        self._health.close()
        self._calls.close()
        # One at a time, and grpc's stop only once: two of them at work at the
        # same time crash in its C code.
        async with self._stop_lock:
            calls = self._calls.in_flight
            finished = await calls.wait_idle_for(grace)
            if not finished:
                _log.warning("cancelling calls that outlast the grace period")
            self._calls.end_endless()
            await self._server.stop(_FLUSH if finished else None)
            # grpc does not wait for the handlers that it cancels.
            if not await calls.wait_idle_for(_FLUSH):
                _log.error("calls do not end when cancelled", extra={"calls": calls.count})


def _explain_bind_failure(host: str, port: int) -> StartupError:
    """Ask the system why an address cannot be bound; gRPC does not say."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return AddressInUse(host, port, "gRPC")
        return StartupError(f"gRPC cannot listen on {host}:{port}: {error.strerror or error}")
    # Free by now, so it was in use a moment ago.
    return AddressInUse(host, port, "gRPC")
