"""Builds the gateway and connects its parts; the one place that does."""

import asyncio
import contextlib
import logging

from parley_gateway.access.credentials import (
    Authenticator,
    KeyAuthentication,
    NoAuthentication,
)
from parley_gateway.access.keyring import BadKeyFile, KeyRing
from parley_gateway.access.reload import KeyFileWatcher
from parley_gateway.app import build_api, wrap
from parley_gateway.clients.session import SessionClient, session_replicas
from parley_gateway.config import GatewaySettings
from parley_gateway.routes.fleet import FleetRoutes
from parley_gateway.server import HttpServer
from parley_kit.admin import AdminServer
from parley_kit.errors import StartupError
from parley_kit.replicas import Resolver, parse_targets
from parley_kit.rpc.security import security_of

log = logging.getLogger(__name__)


class Gateway:
    """The whole service. ``port`` and ``admin_port`` are known once it has started."""

    def __init__(self, settings: GatewaySettings, resolver: Resolver | None = None) -> None:
        self._settings = settings
        self._security = security_of(settings)
        self._replicas = session_replicas(
            resolver or parse_targets(settings.session_targets), self._security
        )
        session = SessionClient(self._replicas, settings.call_timeout_seconds)
        self._fleet = FleetRoutes(session)
        self._watcher: KeyFileWatcher | None = None
        authenticator: Authenticator = NoAuthentication()
        if settings.auth == "keys" and settings.keys_file is not None:
            ring = KeyRing()
            authenticator = KeyAuthentication(ring)
            self._watcher = KeyFileWatcher(settings.keys_file, ring, settings.keys_check_seconds)
        self.api = build_api(settings, authenticator, session, self._fleet)
        self._http = HttpServer(wrap(self.api, settings), settings)
        self._admin = AdminServer(
            settings.admin_host, settings.admin_port, lambda: self._fleet.ready
        )
        self.port = 0
        self.admin_port = 0

    async def start(self) -> None:
        """Start serving. Raises StartupError; what had been started is stopped again."""
        try:
            if self._watcher is not None:
                await self._load_keys(self._watcher)
            if self._security is not None:
                await self._security.start()
            self.admin_port = await self._admin.start()
            await self._replicas.start()
            self.port = await self._http.start()
        except BaseException:
            await self.stop(grace=0)
            raise
        log.info(
            "serving",
            extra={
                "host": self._settings.host,
                "port": self.port,
                "admin_port": self.admin_port,
                "auth": self._settings.auth,
            },
        )

    async def drain(self) -> None:
        """Say that this replica is not ready, and serve on until balancers have noticed."""
        self._fleet.stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_delay_seconds):
                await self.wait_failed()

    async def stop(self, grace: float | None = None) -> None:
        """Stop: readiness off, no new connection, answers in progress end within ``grace``."""
        self._fleet.stopping = True
        await self._http.stop(self._settings.shutdown_grace_seconds if grace is None else grace)
        await self._replicas.stop()
        if self._security is not None:
            await self._security.stop()
        await self._admin.stop()
        if self._watcher is not None:
            await self._watcher.stop()

    @property
    def ready(self) -> bool:
        """Whether requests can be served."""
        return self._fleet.ready

    def ready_replicas(self) -> list[str]:
        """Addresses of the session replicas that can take a call."""
        return [replica.address for replica in self._replicas.ready()]

    async def wait_failed(self) -> None:
        """Wait until the server ends by itself."""
        await self._http.wait_failed()

    async def _load_keys(self, watcher: KeyFileWatcher) -> None:
        try:
            await watcher.start()
        except BadKeyFile as error:
            raise StartupError(f"the key file {self._settings.keys_file} {error}") from error
        except OSError as error:
            raise StartupError(
                f"the key file {self._settings.keys_file} cannot be read: {error.strerror}; "
                "make one with python -m parley_gateway.keys create"
            ) from error
