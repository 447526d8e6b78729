"""One upstream over HTTP: connections, the key, TLS, and its errors in our words.

The key is sent to the configured address alone (redirects are not followed) and appears in no
log line and no error.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from parley_inference.engine.base import GenerationFailed
from parley_inference.engine.openai.refusals import UpstreamAway, refusal
from parley_kit.errors import StartupError

_CONNECT_SECONDS: Final = 5.0
# Time without a byte after which it is looked whether the connection is there at all.
_LOOK_SECONDS: Final = 1.0
_MAX_ERROR_BYTES: Final = 16 * 1024
_MAX_LISTING_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """Where the upstream is. ``url`` ends before ``/chat/completions``; times in seconds.

    ``key_file`` is read again when its upstream's health is looked at, so that keys can change.
    """

    url: str
    key: str = ""
    key_file: Path | None = None
    ca_file: Path | None = None
    connections: int = 32
    silence_seconds: float = 120.0


class Upstream:
    """Talks to the upstream; ``open`` first, ``close`` at last."""

    def __init__(self, options: UpstreamOptions) -> None:
        self._options = options
        self._key = options.key
        self._http: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Prepare connections. Raises StartupError for files that cannot be read."""
        tls: ssl.SSLContext | bool = True
        try:
            if self._options.ca_file is not None:
                path = str(self._options.ca_file)
                tls = await asyncio.to_thread(ssl.create_default_context, cafile=path)
            await self.read_key()
        except (OSError, ssl.SSLError) as error:
            raise StartupError(f"a file of the upstream cannot be read: {error}") from error
        self._http = aiohttp.ClientSession(
            # One more than may run at a time: looking after its health must not wait.
            connector=aiohttp.TCPConnector(limit=self._options.connections + 1, ssl=tls),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=_CONNECT_SECONDS,
                sock_read=self._options.silence_seconds,
            ),
            # Nothing of one request is kept for another.
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.close()

    async def read_key(self) -> None:
        """Read the key's file, where there is one."""
        if self._options.key_file is not None:
            text = await asyncio.to_thread(self._options.key_file.read_text, "utf-8")
            self._key = text.strip()

    async def models(self, seconds: float) -> list[dict[str, Any]]:
        """The models that the upstream lists. Raises EngineError."""
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with self._request("GET", "/models", timeout=timeout) as response:
            try:
                listed = json.loads(await _read(response, _MAX_LISTING_BYTES))
                return [entry for entry in listed["data"] if isinstance(entry, dict)]
            except (ValueError, TypeError, KeyError) as error:
                raise GenerationFailed("the upstream's list of models is none") from error

    @asynccontextmanager
    async def complete(
        self, body: dict[str, Any], headers: dict[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Post a chat completion; inside, the bytes of its stream as they come.

        Leaving the block before the stream has ended closes the connection, by which upstreams
        know that nobody waits. Raises EngineError, UpstreamAway where another try may go better.
        """
        async with self._request("POST", "/chat/completions", json=body, headers=headers) as answer:
            yield _Parts(answer)

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._http is None:
            raise GenerationFailed("the connection to the upstream is closed")
        headers = dict(headers or {})
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        url = self._options.url + path
        try:
            async with self._http.request(
                method, url, headers=headers, allow_redirects=False, **more
            ) as response:
                if response.status != 200:
                    raise refusal(
                        response.status,
                        await _read(response, _MAX_ERROR_BYTES),
                        response.headers.get("Retry-After", ""),
                    )
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # Its text may hold the address; the kind of error is enough for a caller.
            raise UpstreamAway(f"the upstream is away: {type(error).__name__}") from error


class _Parts:
    """The bytes of an answer as they come. Raises UpstreamAway when its connection is gone.

    The client says so by itself of a connection that ends; but not of one that it has closed
    because what came was no HTTP any more: then nothing comes, and nothing ends.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            try:
                async with asyncio.timeout(_LOOK_SECONDS) as look:
                    data = await self._response.content.readany()
            except TimeoutError:
                if not look.expired():
                    raise
                if self._is_gone():
                    raise UpstreamAway("the upstream sent what is no HTTP") from None
                continue
            if not data:
                raise StopAsyncIteration
            return data

    def _is_gone(self) -> bool:
        connection = self._response.connection
        if self._response.content.is_eof():
            return False
        transport = connection.transport if connection is not None else None
        return transport is None or transport.is_closing()


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, cut off at ``most`` bytes."""
    body = b""
    async for part in response.content.iter_any():
        body += part
        if len(body) >= most:
            break
    return body[:most]
