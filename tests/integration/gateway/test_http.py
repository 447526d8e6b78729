"""HTTP/1.1 as hostile and broken clients speak it, on a raw socket."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from support.fake_session import Script
from support.poll import until

from .conftest import Stack, StartStack

pytestmark = pytest.mark.integration

JSON_HEADERS = b"Host: x\r\nContent-Type: application/json\r\n"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        return found


async def _read(reader: asyncio.StreamReader) -> Answer | None:
    async with asyncio.timeout(5):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        line, *rest = head.decode("latin-1").strip().split("\r\n")
        headers = dict(item.lower().split(": ", 1) for item in rest)
        length = int(headers.get("content-length", 0))
        return Answer(int(line.split()[1]), headers, await reader.readexactly(length))


async def _closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(5):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


async def _say(stack: Stack, *parts: bytes) -> tuple[Answer | None, asyncio.StreamReader, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    return await _read(reader), reader, writer


NO_REQUESTS = [
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /chats\r\n\r\n",
    b"GET /chats HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /chats HTTP/2.0\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"get /chats HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /chats HTTP/1.1\r\n\r\n",
    b"GET /chats HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET /chats HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n",
    b"GET /chats HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n",
    b"GET /chats HTTP/1.1\r\nHost: x\r\nA: nul\x00\r\n\r\n",
    b"GET /chats\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / chats HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /chat HTTP/1.1\r\n" + JSON_HEADERS + b"Content-Length: -1\r\n\r\n",
    b"POST /chat HTTP/1.1\r\n" + JSON_HEADERS + b"Content-Length: x\r\n\r\n",
    b"POST /chat HTTP/1.1\r\n" + JSON_HEADERS + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
    b"POST /chat HTTP/1.1\r\n" + JSON_HEADERS + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
    b"POST /chat HTTP/1.1\r\n"
    + JSON_HEADERS
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
]


async def test_what_is_no_request_is_refused_and_closed(stack: Stack) -> None:
    for odd in NO_REQUESTS:
        answer, reader, writer = await _say(stack, odd)
        assert answer is not None, odd
        assert answer.status == 400, odd
        assert answer.problem["code"] == "malformed_request"
        assert await _closed(reader)
        writer.close()
    assert stack.memory.writes == 0


async def test_a_broken_chunk_ends_the_request(stack: Stack) -> None:
    _, reader, writer = await _say(
        stack,
        b"POST /chat HTTP/1.1\r\n"
        + JSON_HEADERS
        + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    )
    assert await _closed(reader)
    writer.close()
    assert stack.memory.writes == 0


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /chats HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET /chats HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    ],
    ids=["target", "header", "headers"],
)
async def test_a_large_head_is_refused(stack: Stack, head: bytes) -> None:
    answer, reader, writer = await _say(stack, head)
    assert answer is not None
    assert answer.status == 431
    assert answer.problem["code"] == "headers_too_large"
    assert await _closed(reader)
    writer.close()


async def test_a_head_that_never_ends_is_cut_off(stack: Stack) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
    writer.write(b"GET /chats HTTP/1.1\r\nHost: x\r\nA: ")
    sent = 0
    try:
        async with asyncio.timeout(5):
            while sent < 64 * 1024 * 1024:
                writer.write(b"x" * 4096)
                await writer.drain()
                sent += 4096
    except ConnectionError:
        pass
    assert sent < 64 * 1024 * 1024
    writer.transport.abort()


async def test_a_slow_head_is_told_and_closed(start_stack: StartStack) -> None:
    stack = await start_stack(head_timeout_seconds=0.2)
    answer, reader, writer = await _say(stack, b"GET /chats HTTP/1.1\r\nHost:")
    assert answer is not None
    assert answer.problem["code"] == "request_timeout"
    assert await _closed(reader)
    writer.close()
    silent, reader, writer = await _say(stack)
    assert silent is None
    writer.close()


async def test_a_slow_body_is_told_and_closed(start_stack: StartStack) -> None:
    stack = await start_stack(body_timeout_seconds=0.2)
    answer, reader, writer = await _say(
        stack, b"POST /chat HTTP/1.1\r\n" + JSON_HEADERS + b"Content-Length: 99\r\n\r\n{"
    )
    assert answer is not None
    assert answer.status == 408
    assert answer.problem["code"] == "request_timeout"
    assert await _closed(reader)
    writer.close()
    assert stack.memory.writes == 0


async def test_a_body_that_claims_too_much_is_refused_before_it_is_sent(stack: Stack) -> None:
    answer, _, writer = await _say(
        stack,
        b"POST /chat HTTP/1.1\r\n"
        + JSON_HEADERS
        + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n",
    )
    assert answer is not None
    assert answer.status == 413
    assert answer.problem["code"] == "payload_too_large"
    writer.close()


async def test_a_chunked_body_is_cut_off_while_it_streams_in(stack: Stack) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    answer, _, writer = await _say(
        stack,
        b"POST /chat HTTP/1.1\r\n" + JSON_HEADERS + b"Transfer-Encoding: chunked\r\n\r\n",
        *[chunk] * 17,
    )
    assert answer is not None
    assert answer.status == 413
    # The rest is dropped within a bound, then the connection is closed.
    sent = 0
    try:
        async with asyncio.timeout(5):
            while sent < 64 * 1024 * 1024:
                writer.write(chunk)
                await writer.drain()
                sent += len(chunk)
    except ConnectionError:
        pass
    assert sent < 64 * 1024 * 1024
    writer.transport.abort()
    assert stack.memory.writes == 0


async def test_a_body_nobody_reads_does_not_keep_the_connection(stack: Stack) -> None:
    answer, reader, writer = await _say(
        stack, b"POST /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    )
    assert answer is not None
    assert answer.problem["code"] == "not_found"
    assert await _closed(reader)
    writer.close()


async def test_a_connection_is_used_again(stack: Stack) -> None:
    one = b"GET /chats HTTP/1.1\r\nHost: x\r\n\r\n"
    answer, reader, writer = await _say(stack, one + one)
    second = await _read(reader)
    assert answer is not None
    assert second is not None
    assert answer.status == second.status == 200
    body = b'{"title":"x"}'
    writer.write(
        b"POST /chat HTTP/1.1\r\n" + JSON_HEADERS + b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    third = await _read(reader)
    assert third is not None
    assert third.status == 201
    writer.close()


async def test_an_absolute_target_and_http_1_0_are_served(stack: Stack) -> None:
    answer, _, writer = await _say(stack, b"GET http://x/chats HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer is not None
    assert answer.status == 200
    writer.close()
    answer, reader, writer = await _say(stack, b"GET /chats HTTP/1.0\r\n\r\n")
    assert answer is not None
    assert answer.status == 200
    assert await _closed(reader)
    writer.close()


async def test_an_upgrade_is_answered_as_a_plain_request(stack: Stack) -> None:
    answer, _, writer = await _say(
        stack,
        b"GET /chats HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    )
    assert answer is not None
    assert answer.status == 200
    writer.close()


async def test_two_credentials_or_users_at_once_are_refused(stack: Stack) -> None:
    answer, _, writer = await _say(
        stack, b"GET /chats HTTP/1.1\r\nHost: x\r\nX-User-ID: a\r\nX-User-ID: b\r\n\r\n"
    )
    assert answer is not None
    assert answer.problem["errors"][0]["field"] == "X-User-ID"
    writer.close()


async def test_connections_are_bounded_in_number(start_stack: StartStack) -> None:
    stack = await start_stack(max_connections=2, script=Script())
    held = [await asyncio.open_connection("127.0.0.1", stack.gateway.port) for _ in range(2)]
    for _, writer in held:
        writer.write(b"GET /chats HTTP/1.1\r\nHost: x\r\n\r\n")
    for reader, _ in held:
        assert await _read(reader) is not None
    reader, extra = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
    assert await _closed(reader)
    for _, writer in [*held, (reader, extra)]:
        writer.close()

    async def served_again() -> bool:
        answer, _, writer = await _say(stack, b"GET /chats HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.close()
        return answer is not None

    await until(served_again)
