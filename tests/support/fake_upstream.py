"""A server that speaks OpenAI's HTTP dialect and misbehaves on request, for tests.

Plain HTTP/1.1 over asyncio streams, so that it can send what no server library would: halves of
streams, rubbish, other statuses. Its answers are the simulator's text, the same for the same
messages; each word is a token.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import ssl
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from parley_inference.engine.sim import text, tokenizer

MODEL = "fake-model"
CONTEXT = 4096


class Fault(NamedTuple):
    """What a request meets. ``after``: pieces that are sent before it strikes."""

    kind: str
    after: int = 0
    status: int = 200
    headers: str = ""
    body: bytes = b"{}"


@dataclass
class FakeUpstream:
    """How it behaves, and what it has seen. Times in seconds."""

    pace: float = 0.0
    answer_tokens: int = 64
    key: str = ""
    usage: bool = True
    context: int = CONTEXT
    faults: deque[Fault] = field(default_factory=deque)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    # Requests being answered now, and connections accepted so far.
    running: int = 0
    connections: int = 0
    abandoned: int = 0
    away: bool = False
    port: int = 0

    @property
    def url(self) -> str:
        """The address that clients are given."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if self.away:
            return False
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            await _send(writer, 401, b'{"error": {"message": "no"}}')
            return True
        if line.startswith("GET /v1/models "):
            listed = {"data": [{"id": MODEL, "max_model_len": self.context}]}
            await _send(writer, 200, json.dumps(listed).encode())
            return True
        request = json.loads(body)
        self.requests.append(request)
        self.headers.append(headers)
        fault = self.faults.popleft() if self.faults else Fault("")
        if fault.kind == "noise":
            writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            await writer.drain()
            return False
        if fault.kind == "mute":
            await _hang(reader)
        if fault.status != 200:
            await _send(writer, fault.status, fault.body, fault.headers)
            return True
        if _prompt_tokens(request) + _budget(request) > self.context:
            error = {"error": {"code": "context_length_exceeded", "message": "too long"}}
            await _send(writer, 400, json.dumps(error).encode())
            return True
        self.running += 1
        try:
            return await self._stream(request, fault, reader, writer)
        except ConnectionError:
            self.abandoned += 1
            raise
        finally:
            self.running -= 1

    async def _stream(
        self,
        request: dict[str, Any],
        fault: Fault,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        await _event(writer, _choice({"role": "assistant", "content": ""}))
        existing = ""
        if request.get("continue_final_message"):
            existing = request["messages"][-1]["content"]
        drawn, reason = 0, "length"
        for piece in _rest_of(_pieces(request), existing):
            if fault.kind and drawn >= fault.after:
                return await _strike(fault, reader, writer)
            if drawn >= self.answer_tokens - 1 and not request.get("ignore_eos"):
                reason = "stop"
            drawn += 1
            await _event(writer, _choice({"content": piece}))
            if reason == "stop" or drawn >= _budget(request):
                break
            await _pause(reader, self.pace)
        else:
            reason = "stop"
        await _event(writer, _choice({}, reason))
        if self.usage:
            counted = {"prompt_tokens": _prompt_tokens(request), "completion_tokens": drawn}
            await _event(writer, {"choices": [], "usage": counted})
        await _chunk(writer, b"data: [DONE]\n\n")
        await _chunk(writer, b"")
        return True


async def _strike(fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Do what a fault says; whether the connection goes on."""
    if fault.kind == "rubbish":
        await _chunk(writer, b"data: {not json\n\n")
    elif fault.kind == "endless":
        for _ in range(80):
            await _chunk(writer, b"x" * 8192)
    elif fault.kind == "flood":
        while True:
            await _event(writer, _choice({"content": "more " * 64}))
    elif fault.kind == "error":
        await _event(writer, {"error": {"message": "died", "code": 500}})
    elif fault.kind == "hang":
        await _hang(reader)
    elif fault.kind == "half":
        # Its own direction is closed in mid-stream; it still reads.
        writer.write_eof()
        await _hang(reader)
    elif fault.kind == "garbled":
        # Not even chunks any more.
        writer.write(b"zz\r\n\xff\xfe\r\n")
        await writer.drain()
    elif fault.kind == "end":
        # A whole HTTP response, but of half an answer.
        await _chunk(writer, b"")
        return True
    else:
        assert fault.kind == "cut", fault.kind
        writer.transport.abort()
    return False


def _budget(request: dict[str, Any]) -> int:
    return int(request.get("max_tokens") or request["max_completion_tokens"])


def _prompt_tokens(request: dict[str, Any]) -> int:
    return sum(len(message["content"].split()) + 3 for message in request["messages"]) + 1


def _pieces(request: dict[str, Any]) -> Iterator[str]:
    if "response_format" in request:
        schema = request["response_format"]["json_schema"]["schema"]
        return iter(json.dumps(dict.fromkeys(schema["required"], True)).split(" "))
    messages = [m for m in request["messages"] if m["role"] != "assistant"]
    seed = request.get("seed")
    if seed is None or request.get("continue_final_message"):
        digest = hashlib.sha256(json.dumps(messages).encode()).digest()
        seed = int.from_bytes(digest[:8], "big")
    decoder = tokenizer.Decoder()
    return filter(None, map(decoder.push, text.answer_tokens(seed)))


def _rest_of(pieces: Iterator[str], existing: str) -> Iterator[str]:
    """The pieces after those that make up ``existing``."""
    for piece in pieces:
        if existing:
            assert existing.startswith(piece), "the prefix is not one of this answer"
            existing = existing[len(piece) :]
        else:
            yield piece


def _choice(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


async def _pause(reader: asyncio.StreamReader, seconds: float) -> None:
    """Wait for the next token; raises ConnectionError when the client has left."""
    await asyncio.sleep(seconds)
    if reader.at_eof():
        raise ConnectionResetError


async def _hang(reader: asyncio.StreamReader) -> NoReturn:
    """Do nothing until the client has left; raises ConnectionError then."""
    while True:
        await _pause(reader, 0.01)


async def _event(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    await _chunk(writer, b"data: " + json.dumps(event).encode() + b"\n\n")


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
    await writer.drain()


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes, headers: str = "") -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


@contextlib.asynccontextmanager
async def fake_upstream(
    tls: ssl.SSLContext | None = None, **behaviour: Any
) -> AsyncIterator[FakeUpstream]:
    """A running upstream on a free port."""
    fake = FakeUpstream(**behaviour)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(fake.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def upstream_process(key: str = "") -> Iterator[str]:
    """An upstream as a process of its own; its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "support.fake_upstream", key],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


async def main(key: str = "") -> None:
    """Serve until the process is ended; its port is the only line of output."""
    async with fake_upstream(pace=0.005, answer_tokens=200, key=key) as fake:
        sys.stdout.write(f"{fake.port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
