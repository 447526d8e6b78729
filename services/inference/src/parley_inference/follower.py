"""A machine that holds a part of a model that is spread over several, and serves nobody.

It joins the leader's engine and works until the leader ends. Asked to stop, it works on while the
leader ends its answers, within the grace period: all of them are told at about the same time.
"""

import asyncio
import contextlib
import logging
from typing import Final, Protocol

from parley_inference.config import Settings
from parley_kit.admin import AdminServer

_log = logging.getLogger(__name__)

# The leader has gone when it could not be reached so many times, so many seconds apart.
_MISSES: Final = 3
_LOOK_SECONDS: Final = 1.0


class Part(Protocol):
    """This machine's share of an engine."""

    @property
    def alive(self) -> bool:
        """Whether it has started and works."""

    @property
    def progress(self) -> str:
        """What it does while it starts."""

    async def start(self) -> None:
        """Join the leader. Raises StartupError."""

    async def stop(self) -> None:
        """End it, also while it starts."""


class Follower:
    """This machine's part, an admin port, and an eye on the leader."""

    def __init__(self, settings: Settings, part: Part) -> None:
        self._settings = settings
        self._part = part
        self._joined = False
        self._admin = AdminServer(
            settings.admin_host,
            settings.admin_port,
            lambda: self._joined,
            why=lambda: part.progress,
        )
        self.admin_port = 0

    async def start(self) -> None:
        """Listen on the admin port, saying `not ready`; the part starts in ``load``."""
        self.admin_port = await self._admin.start()
        _log.info("listening", extra={"port": 0, "admin_port": self.admin_port})

    async def load(self) -> None:
        """Join the leader."""
        await self._part.start()
        self._joined = True
        _log.info("ready", extra={"rank": self._settings.node_rank})

    async def watch_engine(self) -> None:
        """Return when the leader has gone or this machine's part has ended."""
        _log.error(await self._end())
        self._joined = False

    async def stop(self) -> None:
        """Work on until the leader has gone, within the grace period, and end."""
        settings = self._settings
        grace = settings.drain_delay_seconds + settings.shutdown_grace_seconds
        if self._joined:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    _log.info(await self._end())
        self._joined = False
        try:
            await self._part.stop()
        finally:
            await self._admin.stop()

    async def _end(self) -> str:
        """Wait for the end of this machine's part, or of the leader; which it is."""
        misses = 0
        while self._part.alive and misses < _MISSES:
            await asyncio.sleep(_LOOK_SECONDS)
            misses = 0 if await self._leader_is_there() else misses + 1
        return "the leader has gone" if self._part.alive else "this machine's part has ended"

    async def _leader_is_there(self) -> bool:
        """Whether the engine's leader accepts a connection where this machine has met it."""
        settings = self._settings
        try:
            async with asyncio.timeout(_LOOK_SECONDS * 5):
                _, writer = await asyncio.open_connection(
                    settings.leader_address, settings.leader_port
                )
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True
