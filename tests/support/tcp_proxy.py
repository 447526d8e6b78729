"""A TCP proxy that misbehaves on request, to stand between two parts of the platform.

    proxy = TcpProxy("127.0.0.1:6379")
    await proxy.start()          # then give proxy.address to whoever connects
    proxy.stall()                # connections stay open and nothing moves
    proxy.heal()

Faults hold for connections that are open and for those that come. What has been read and
not yet sent on is at most `CHUNK` bytes a direction, beside the kernel's own buffers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

LOOPBACK = "127.0.0.1"
# Most bytes read at once, and held of one direction of one connection.
CHUNK = 16 * 1024
# The kernel's buffers are kept small, so that a slow link is felt at once.
SOCKET_BUFFER = 16 * 1024
CONNECT_SECONDS = 5.0
# Times a second that a slow link lets something through.
SLOW_STEPS = 20


class Mode(StrEnum):
    """What happens to bytes."""

    PASS = "pass"
    STALL = "stall"
    SLOW = "slow"
    RESET = "reset"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Counts:
    """Since the proxy was started."""

    connections: int
    resets: int
    bytes: int


class TcpProxy:
    """One listening port in front of one target ("host:port"), on the running event loop."""

    def __init__(self, target: str = "") -> None:
        self.target = target
        self._mode = Mode.PASS
        self._bytes_per_second = 0
        # Bytes that may pass until every connection is reset.
        self._bytes_left = 0
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._connections = self._resets = self._bytes = 0

    async def __aenter__(self) -> TcpProxy:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens on a free port; the target may still be set afterwards."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0, limit=CHUNK)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Ends everything that is open."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(list(self._open))
        if self._server is not None:
            await self._server.wait_closed()

    @property
    def address(self) -> str:
        """Where it listens, "host:port"."""
        return f"{LOOPBACK}:{self._port}"

    @property
    def mode(self) -> Mode:
        """What happens to bytes now."""
        return self._mode

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._open)

    @property
    def counts(self) -> Counts:
        """What has gone through."""
        return Counts(self._connections, self._resets, self._bytes)

    # faults ---------------------------------------------------------------------

    def heal(self) -> None:
        """Everything passes."""
        self._set(Mode.PASS)

    def stall(self) -> None:
        """Connections stay open, new ones are accepted, and nothing moves."""
        self._set(Mode.STALL)

    def slow(self, bytes_per_second: int) -> None:
        """Each direction of each connection carries so much and no more."""
        assert bytes_per_second >= SLOW_STEPS
        self._bytes_per_second = bytes_per_second
        self._set(Mode.SLOW)

    def reset_after(self, bytes_: int) -> None:
        """Once so many more bytes have passed, all that is open is reset; then all passes."""
        self._bytes_left = bytes_
        self._set(Mode.RESET)
        if bytes_ <= 0:
            self._reset()

    def cut(self) -> None:
        """Resets everything that is open; new connections are closed as they come."""
        self._set(Mode.REFUSE)
        self._reset_open()

    def _set(self, mode: Mode) -> None:
        self._mode = mode
        self._changed.set()
        self._changed = asyncio.Event()

    def _reset(self) -> None:
        self._set(Mode.PASS)
        self._reset_open()

    def _reset_open(self) -> None:
        for task, writers in list(self._open.items()):
            self._resets += 1
            for writer in writers:
                _linger_no_more(writer)
            task.cancel()

    # bytes ----------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections += 1
        self._open[task] = writers = [writer]
        try:
            await self._carry(reader, writer, writers)
        except (OSError, TimeoutError, asyncio.CancelledError):
            # Either end went, or the proxy was told to: both ends see the connection go.
            return
        finally:
            del self._open[task]
            for each in writers:
                each.transport.abort()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        writers: list[asyncio.StreamWriter],
    ) -> None:
        if self._mode is Mode.REFUSE:
            _linger_no_more(writer)
            return
        _keep_small(writer)
        host, port = self.target.rsplit(":", 1)
        async with asyncio.timeout(CONNECT_SECONDS):
            onward, outward = await asyncio.open_connection(host, int(port), limit=CHUNK)
        writers.append(outward)
        _keep_small(outward)
        directions = {
            asyncio.create_task(self._pump(reader, outward)),
            asyncio.create_task(self._pump(onward, writer)),
        }
        try:
            done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_EXCEPTION)
            for direction in done:
                direction.result()
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.wait(directions)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, to its end of file, which is passed on."""
        while True:
            await self._passing()
            try:
                data = await reader.read(CHUNK)
            finally:
                # An end that comes while nothing moves is not passed on either.
                await self._passing()
            if not data:
                break
            async for part in self._paced(data):
                writer.write(part)
                await writer.drain()
                self._count(len(part))
        writer.write_eof()

    async def _passing(self) -> None:
        while self._mode is Mode.STALL:
            await self._changed.wait()

    async def _paced(self, data: bytes) -> AsyncIterator[bytes]:
        """What was read, in the pieces and at the times at which it may go on."""
        while data:
            await self._passing()
            size = len(data)
            if self._mode is Mode.SLOW:
                size = min(size, max(1, self._bytes_per_second // SLOW_STEPS))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(size / self._bytes_per_second):
                        await self._changed.wait()
                if self.mode is Mode.STALL:  # by now
                    continue
            elif self._mode is Mode.RESET:
                size = min(size, max(1, self._bytes_left))
            yield data[:size]
            data = data[size:]

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._mode is Mode.RESET:
            self._bytes_left -= size
            if self._bytes_left <= 0:
                self._reset()


def _linger_no_more(writer: asyncio.StreamWriter) -> None:
    """Closing sends a reset instead of an orderly end."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _keep_small(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    writer.transport.set_write_buffer_limits(high=CHUNK)
