"""A gateway that follows a test's script: what clients do when it breaks or refuses.

The script is asked for a reply to each request. A reply's body is cut off as a broken
connection cuts it off: it is chunked, and the last chunk never comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

LOOPBACK = "127.0.0.1"
LONGEST_BODY = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """A request; names of headers in small letters."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """`status` 0: the connection closes without an answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    # The body ends as HTTP has it.
    whole: bool = False
    # Nothing more comes, and the connection stays open.
    silent: bool = False


def problem(status: int, code: str, **headers: str) -> Reply:
    """Reply with a refusal."""
    body = json.dumps({"code": code, "detail": "as scripted"}).encode()
    return Reply(status, body, headers, whole=True)


@contextlib.asynccontextmanager
async def scripted(script: Callable[[Asked], Reply]) -> AsyncIterator[str]:
    """Serve the script on a free port; yields its URL."""
    open_: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_.add(task)
        try:
            await _answer(script, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The client went, or the test is over.
            return
        finally:
            open_.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_)


async def _answer(
    script: Callable[[Asked], Reply], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    pairs = (line.partition(": ") for line in lines if line)
    headers = {name.lower(): value for name, _, value in pairs}
    length = int(headers.get("content-length", "0"))
    assert length <= LONGEST_BODY
    reply = script(Asked(method, path, headers, await reader.readexactly(length)))
    if not reply.status:
        return
    head = [f"HTTP/1.1 {reply.status} Scripted", "connection: close", "transfer-encoding: chunked"]
    head += [f"{name}: {value}" for name, value in reply.headers.items()]
    writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
    if reply.body:
        writer.write(b"%x\r\n%b\r\n" % (len(reply.body), reply.body))
    if reply.whole:
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    if reply.silent:
        await reader.read()
