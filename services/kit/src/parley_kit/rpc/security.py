"""TLS of a process's servers and channels, in step with its certificates' files.

New connections are made with what the files held at the last look; those that stand are left
alone. Files that are bad change nothing: the last good ones stay in use, and the log and a
metric say so.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from parley_kit import metrics
from parley_kit.config import ServiceSettings
from parley_kit.errors import StartupError
from parley_kit.tls import BadCertificates, Identity, Material, TlsFiles, identity, read

_log = logging.getLogger(__name__)


class Security:
    """Credentials for servers and channels; looks at the files every ``check_seconds``."""

    def __init__(self, files: TlsFiles, check_seconds: float) -> None:
        self._files = files
        self._check_seconds = check_seconds
        self._seen: Identity | None = None
        self._complaint = ""
        self._material = Material(b"", b"", b"", 0.0)
        self._watching: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.generation = 0
        """How often the certificates have been taken up."""

    async def start(self) -> None:
        """Read the files and begin to watch them. Raises StartupError."""
        try:
            await self._take()
        except BadCertificates as error:
            raise StartupError(f"TLS: {error}") from error
        self._watching = asyncio.create_task(self._watch(), name="tls-files")

    async def stop(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def wait_newer(self, generation: int) -> None:
        """Wait, without a bound, until there are newer certificates than ``generation``'s."""
        while self.generation == generation:
            await self._changed.wait()

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return what a port is served with; each handshake asks for the newest certificate."""
        return grpc.dynamic_ssl_server_credentials(
            self._server_configuration(),
            self._server_configuration,
            require_client_authentication=self._files.mutual,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return what a channel is opened with: the newest, for the whole of its life."""
        shown = self._files.mutual
        return grpc.ssl_channel_credentials(
            self._material.ca,
            self._material.key if shown else None,
            self._material.certificate if shown else None,
        )

    def _server_configuration(self) -> grpc.ServerCertificateConfiguration:
        # Called on gRPC's threads: one read of one attribute.
        material = self._material
        return grpc.ssl_server_certificate_configuration(
            [(material.key, material.certificate)], root_certificates=material.ca
        )

    async def check(self) -> None:
        """Look once; take up what has changed."""
        try:
            if await asyncio.to_thread(identity, self._files) == self._seen:
                return
            await self._take()
        except BadCertificates as error:
            self._complain(str(error))
            return
        self._complaint = ""
        metrics.TLS_RELOADS.labels("loaded").inc()
        _log.info("certificates reloaded")

    async def _take(self) -> None:
        # The identity first: a change between the two reads is seen next time.
        seen = await asyncio.to_thread(identity, self._files)
        self._material = await asyncio.to_thread(read, self._files)
        self._seen = seen
        metrics.TLS_EXPIRY.set(self._material.expires)
        self.generation += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._check_seconds)
            await self.check()

    def _complain(self, sentence: str) -> None:
        # Once a change, not once a look.
        if sentence != self._complaint:
            self._complaint = sentence
            metrics.TLS_RELOADS.labels("refused").inc()
            _log.error("bad certificates; the last good ones stay in use: %s", sentence)


def security_of(settings: ServiceSettings) -> Security | None:
    """Return what a service's settings ask for, not yet started; None for plaintext."""
    files = settings.tls_files
    return Security(files, settings.tls_check_seconds) if files else None


@asynccontextmanager
async def secured(settings: ServiceSettings) -> AsyncIterator[Security | None]:
    """Keep a service's credentials while the block runs; None: plaintext. Raises StartupError."""
    security = security_of(settings)
    if security is not None:
        await security.start()
    try:
        yield security
    finally:
        if security is not None:
            await security.stop()
