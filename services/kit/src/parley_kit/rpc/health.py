"""grpc.health.v1 for one server.

Not grpcio-health-checking's servicer: its Watch never returns, so that a
graceful stop would always wait its whole grace for those who watch, and its
``set`` has to be awaited.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICE = "grpc.health.v1.Health"
# SERVING whenever the process is at work, ready or not: what a liveness probe asks for.
LIVENESS = "liveness"


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers for "" and each named service with one status, and for `liveness`."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(("", *names))
        self._serving = False
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether the server says that it is SERVING."""
        return self._serving

    def set_serving(self, serving: bool) -> None:
        """Change the status; those who watch are told."""
        self._serving = serving and not self._closed
        self._wake()

    def close(self) -> None:
        """Say NOT_SERVING for good and end all watches."""
        self._closed = True
        self.set_serving(False)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, name: str, unknown: int) -> int:
        status = health_pb2.HealthCheckResponse
        if name == LIVENESS:
            return int(status.SERVING)
        if name not in self._names:
            return unknown
        return int(status.SERVING if self._serving else status.NOT_SERVING)

    async def Check(self, request: Any, context: Any) -> Any:
        """Answer with the status; NOT_FOUND for a service that is not here."""
        status = self._status(request.service, -1)
        if status < 0:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> None:
        """Send the status now and whenever it changes, until the server stops."""
        unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        sent = -1
        while True:
            # Read together: a write takes time, in which both may change.
            changed, closed = self._changed, self._closed
            status = self._status(request.service, unknown)
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            if closed:
                return
            await changed.wait()
