"""The ways to an answer that are compared: engine, session, gateway."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import orjson
from parley.inference.v1 import inference_pb2 as inference
from parley.inference.v1 import inference_pb2_grpc as inference_grpc
from parley.session.v1 import session_pb2 as session
from parley.session.v1 import session_pb2_grpc as session_grpc

from parley_loadtest.bench.http import BadAnswer, HttpConnection
from parley_loadtest.bench.ids import uuid7

_SECONDS = 120.0
_TENANT = "default"


@dataclass(frozen=True, slots=True)
class Counted:
    """One answer: its tokens as the service counts them, and the pieces it came in."""

    tokens: int
    pieces: int


class Way(Protocol):
    """One connection's way to an answer."""

    async def answer(self, question: str, tokens: int, *, streamed: bool) -> Counted:
        """Ask for an answer of so many tokens and read it whole."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


_number = itertools.count()


def question() -> str:
    """A question that nobody has asked before."""
    return f"Question {uuid.uuid4().hex}: what is number {next(_number)}?"


class EngineWay:
    """Straight to an inference replica's gRPC."""

    def __init__(self, address: str, model: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_own_connection())
        self._stub: Any = inference_grpc.InferenceServiceStub(self._channel)
        self._model = model

    async def answer(self, question: str, tokens: int, *, streamed: bool) -> Counted:
        """Ask; the engine only streams, so `streamed` makes no difference."""
        del streamed
        request = inference.GenerateRequest(
            request_id=f"bench-{uuid.uuid4()}:1:1",
            model=self._model,
            messages=[inference.ChatMessage(role=inference.ROLE_USER, content=question)],
            sampling=inference.SamplingOptions(max_tokens=tokens, temperature=0.7, top_p=1.0),
            template_time=1_700_000_000,
        )
        pieces = count = 0
        async for response in self._stub.Generate(request, timeout=_SECONDS):
            kind = response.WhichOneof("event")
            if kind == "chunk":
                pieces += 1
            elif kind == "finished":
                count = response.finished.completion_tokens
        return Counted(count, pieces)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


class SessionWay:
    """To a session replica's gRPC, as a gateway does."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_own_connection())
        self._stub: Any = session_grpc.SessionServiceStub(self._channel)
        self._user = f"bench-{uuid.uuid4().hex[:12]}"

    async def answer(self, question: str, tokens: int, *, streamed: bool) -> Counted:
        """Ask in a new chat; the session only streams, so `streamed` makes no difference."""
        del streamed
        request = session.CompleteRequest(
            chat_id=uuid7(),
            run_id=uuid7(),
            new_chat=session.NewChat(),
            message=question,
            options=session.CompletionOptions(max_tokens=tokens),
        )
        metadata = (("parley-tenant", _TENANT), ("parley-user-bin", self._user.encode()))
        pieces = count = 0
        async for response in self._stub.Complete(request, timeout=_SECONDS, metadata=metadata):
            event = response.event
            kind = event.WhichOneof("event")
            if kind == "delta":
                pieces += 1
            elif kind == "done":
                count = event.done.usage.completion_tokens
            elif kind == "failed":
                raise BadAnswer(f"{event.failed.problem.code}: {event.failed.problem.detail}")
        return Counted(count, pieces)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


class GatewayWay:
    """Over REST, streamed as server-sent events or as one JSON answer."""

    def __init__(self, url: str) -> None:
        self._http = HttpConnection(url)
        self._user = f"bench-{uuid.uuid4().hex[:12]}"

    async def answer(self, question: str, tokens: int, *, streamed: bool) -> Counted:
        """Ask in a new chat."""
        body = orjson.dumps(
            {
                "message": question,
                "userID": self._user,
                "stream": streamed,
                "options": {"maxTokens": tokens},
            }
        )
        accept = "text/event-stream" if streamed else "application/json"
        parts = [part async for part in self._http.post("/chat", body, accept)]
        content = b"".join(parts)
        if not streamed:
            return Counted(_tokens(content), 1)
        pieces = content.count(b"event: delta\n") + content.count(b"event: delta\r\n")
        last = content.rstrip().rpartition(b"data:")[2]
        if b"event: done" not in content:
            raise BadAnswer(last.decode(errors="replace"))
        return Counted(_tokens(last), pieces)

    async def close(self) -> None:
        """Close the connection."""
        await self._http.close()


def _tokens(answer: bytes) -> int:
    return int(orjson.loads(answer)["usage"]["completionTokens"])


def _own_connection() -> list[tuple[str, Any]]:
    # Channels to one address share a connection unless told otherwise.
    return [("grpc.use_local_subchannel_pool", 1)]


MakeWay = Callable[[], Way]
