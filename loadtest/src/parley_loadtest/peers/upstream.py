"""An OpenAI face of the `sim` engine, for benchmarks: what other proxies stand in front of.

    python -m parley_loadtest.peers.upstream PORT

The engine, its pacing, its door and its coalescing are the inference service's own
(`PARLEY_INFERENCE_*` settings), so that both upstreams differ in their protocol alone.
Serves `POST /v1/chat/completions`, streamed or whole, and `GET /v1/models`.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import uvicorn
from parley.inference.v1 import inference_pb2 as pb

from parley_inference.bounds import Bounds
from parley_inference.config import Settings
from parley_inference.door import Door
from parley_inference.engine.base import Engine
from parley_inference.engine.build import build_engine
from parley_inference.generation import Generator
from parley_kit.errors import ServiceError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_SECONDS = 120.0
_MAX_BODY_BYTES = 4 * 1024 * 1024
_ROLES = {
    "system": pb.ROLE_SYSTEM,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
}
_FINISHES = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}


class Face:
    """The ASGI application."""

    def __init__(self, engine: Engine, generator: Generator) -> None:
        self._engine = engine
        self._generator = generator
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        model = self._engine.info.model_id
        if scope["method"] == "GET" and scope["path"] == "/v1/models":
            await _whole(send, 200, {"object": "list", "data": [{"id": model, "object": "model"}]})
        elif scope["method"] == "POST" and scope["path"] == "/v1/chat/completions":
            await self._complete(receive, send)
        else:
            await _whole(send, 404, _error("there is nothing here"))

    async def _complete(self, receive: Receive, send: Send) -> None:
        try:
            asked = orjson.loads(await _body(receive))
            request = self._request(asked)
        except (ValueError, KeyError, TypeError) as error:
            await _whole(send, 400, _error(f"not a request: {error}"))
            return
        answer = _Answer(send, request.request_id, asked)
        try:
            await self._generator.serve(request, answer.take, _SECONDS)
        except ServiceError as error:
            if answer.begun:
                raise
            await _whole(send, 503, _error(error.detail))
        else:
            await answer.end()

    def _request(self, asked: dict[str, Any]) -> pb.GenerateRequest:
        return pb.GenerateRequest(
            request_id=f"peer-{next(self._numbers)}",
            model=asked["model"],
            messages=[
                pb.ChatMessage(role=_ROLES[one["role"]], content=one["content"])
                for one in asked["messages"]
            ],
            sampling=pb.SamplingOptions(
                max_tokens=asked.get("max_tokens") or asked.get("max_completion_tokens") or 64,
                temperature=asked.get("temperature") or 0.0,
                top_p=1.0,
            ),
            template_time=int(time.time()),
        )


class _Answer:
    """Turns the engine's events into an answer over HTTP."""

    def __init__(self, send: Send, request_id: str, asked: dict[str, Any]) -> None:
        self.begun = False
        self._send = send
        self._streamed = bool(asked.get("stream"))
        self._with_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        self._text: list[str] = []
        self._usage: dict[str, int] = {}
        self._reason = "stop"
        kind = "chat.completion.chunk" if self._streamed else "chat.completion"
        self._head = {
            "id": request_id,
            "object": kind,
            "created": int(time.time()),
            "model": asked["model"],
        }

    async def take(self, event: pb.GenerateResponse) -> None:
        """Send what an event says, or keep it for the whole answer."""
        kind = event.WhichOneof("event")
        if kind == "chunk":
            if self._streamed:
                await self._event(_choice({"role": "assistant", "content": event.chunk.text}))
            else:
                self._text.append(event.chunk.text)
        elif kind == "finished":
            done = event.finished
            self._reason = _FINISHES.get(done.finish_reason, "stop")
            self._usage = {
                "prompt_tokens": done.prompt_tokens,
                "completion_tokens": done.completion_tokens,
                "total_tokens": done.prompt_tokens + done.completion_tokens,
            }

    async def end(self) -> None:
        """Send what is left."""
        if not self._streamed:
            message = {"role": "assistant", "content": "".join(self._text)}
            choice = {"index": 0, "message": message, "finish_reason": self._reason}
            await _whole(self._send, 200, {**self._head, "choices": [choice], "usage": self._usage})
            return
        await self._event(_choice({}, self._reason))
        if self._with_usage:
            await self._event({"choices": [], "usage": self._usage})
        await self._send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _event(self, fields: dict[str, Any]) -> None:
        if not self.begun:
            self.begun = True
            headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        data = b"data: " + orjson.dumps({**self._head, **fields}) + b"\n\n"
        await self._send({"type": "http.response.body", "body": data, "more_body": True})


def _choice(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error"}}


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > _MAX_BODY_BYTES:
            raise ValueError("the body is too large")
        if not message.get("more_body"):
            return b"".join(parts)


async def _whole(send: Send, status: int, document: dict[str, Any]) -> None:
    body = orjson.dumps(document)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def serve(port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = Settings()
    engine = build_engine(settings)
    await engine.start()
    door = Door(settings.max_waiting)
    door.open(engine.info.max_running)
    bounds = Bounds(settings.max_messages, settings.max_prompt_bytes)
    generator = Generator(engine, door, bounds=bounds, coalesce_seconds=settings.coalesce_seconds)
    server = uvicorn.Server(
        uvicorn.Config(
            Face(engine, generator),
            host="127.0.0.1",
            port=port,
            access_log=False,
            log_level="warning",
            lifespan="off",
        )
    )
    try:
        await server.serve()
    finally:
        await engine.stop()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
