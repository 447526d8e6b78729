"""A small HTTP/1.1 client over asyncio, on httptools' parser.

The benchmark shares its machine with what it measures; a general client would
use more CPU per piece of a stream than the platform does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httptools

_READ_BYTES = 65_536


class BadAnswer(RuntimeError):
    """The service did not answer as asked; the message holds what it said."""


class _Message:
    """Collects one response as httptools finds its parts."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.complete = True

    def take(self) -> bytes:
        data = b"".join(self.parts)
        self.parts.clear()
        return data


class HttpConnection:
    """One kept-alive connection; one request at a time.

    Args:
        url: base URL, plain HTTP.
        seconds: longest silence within an answer.
    """

    def __init__(self, url: str, seconds: float = 60.0) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._seconds = seconds
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            self._reader = self._writer = None

    async def post(self, path: str, body: bytes, accept: str) -> AsyncIterator[bytes]:
        """Send a body; give the answer's as it comes.

        Raises:
            BadAnswer: a status that is not 2xx, an answer cut short, or silence.
        """
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Accept: {accept}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        message = _Message()
        failed = True
        try:
            while not message.complete:
                data = await self._read(self._reader, path)
                if not data:
                    raise BadAnswer("the connection was closed in mid-answer")
                message.parser.feed_data(data)
                if message.parts and message.parser.get_status_code() < 300:
                    yield message.take()
            if message.parser.get_status_code() >= 300:
                raise BadAnswer(
                    f"{message.parser.get_status_code()}: {message.take().decode(errors='replace')}"
                )
            failed = not message.parser.should_keep_alive()
        finally:
            if failed:
                await self.close()

    async def _read(self, reader: asyncio.StreamReader, path: str) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                return await reader.read(_READ_BYTES)
        except TimeoutError as exc:
            where = f"http://{self._host}:{self._port}{path}"
            raise BadAnswer(f"{where} was silent for {self._seconds:g} s") from exc
