"""One connection's way to a streamed answer, timed."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from parley_loadtest.bench.http import BadAnswer, HttpConnection

_SSE = "text/event-stream"
# A small machine takes a minute to begin 32 answers at once.
_LONGEST_SILENCE = 300.0


@dataclass(frozen=True, slots=True)
class Timed:
    """One answer: its tokens as the service counts them, the pieces it came in, times."""

    tokens: int
    pieces: int
    # Seconds until the first text, and in all.
    first: float
    whole: float


class TimedWay(Protocol):
    """One connection."""

    async def answer(self, question: str, tokens: int, *, streamed: bool) -> Timed:
        """Ask for an answer of at most so many tokens and read it whole."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class ParleyWay:
    """To Parley's gateway: a new chat for each question, which is stored."""

    def __init__(self, url: str, temperature: float = 0.7, cache: str = "use") -> None:
        self._http = HttpConnection(url, _LONGEST_SILENCE)
        self._user = f"bench-{uuid.uuid4().hex[:12]}"
        self._temperature = temperature
        self._cache = cache

    async def answer(self, question: str, tokens: int, *, streamed: bool) -> Timed:
        """See `TimedWay.answer`."""
        body = {
            "message": question,
            "userID": self._user,
            "stream": streamed,
            "options": {
                "maxTokens": tokens,
                "temperature": self._temperature,
                "cache": self._cache,
            },
        }
        accept = _SSE if streamed else "application/json"
        parts = self._http.post("/chat", orjson.dumps(body), accept)
        if not streamed:
            return await _whole(parts, lambda answer: int(answer["usage"]["completionTokens"]))
        began, first, read = time.perf_counter(), 0.0, []
        async for part in parts:
            if not first and b"event: delta" in part:
                first = time.perf_counter() - began
            read.append(part)
        seconds, content = time.perf_counter() - began, b"".join(read)
        last = content.rstrip().rpartition(b"data:")[2]
        if b"event: done" not in content:
            raise BadAnswer(last.decode(errors="replace"))
        count = int(orjson.loads(last)["usage"]["completionTokens"])
        return Timed(count, content.count(b"event: delta"), first, seconds)

    async def close(self) -> None:
        """Close the connection."""
        await self._http.close()


class OpenAiWay:
    """To an OpenAI-compatible server."""

    def __init__(self, url: str, model: str, temperature: float = 0.7) -> None:
        self._http = HttpConnection(url, _LONGEST_SILENCE)
        self._model = model
        self._temperature = temperature

    async def answer(self, question: str, tokens: int, *, streamed: bool) -> Timed:
        """See `TimedWay.answer`."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": tokens,
            "temperature": self._temperature,
            "stream": streamed,
        }
        if streamed:
            body["stream_options"] = {"include_usage": True}
        accept = _SSE if streamed else "application/json"
        parts = self._http.post("/v1/chat/completions", orjson.dumps(body), accept)
        if not streamed:
            return await _whole(parts, lambda answer: int(answer["usage"]["completion_tokens"]))
        began, first, read = time.perf_counter(), 0.0, []
        async for part in parts:
            if not first and _has_text(part):
                first = time.perf_counter() - began
            read.append(part)
        seconds, content = time.perf_counter() - began, b"".join(read)
        for line in reversed(content.splitlines()):
            if line.startswith(b"data:") and b'"completion_tokens"' in line:
                count = int(orjson.loads(line[5:])["usage"]["completion_tokens"])
                return Timed(count, content.count(b'"delta"'), first, seconds)
        raise BadAnswer(content.decode(errors="replace")[-500:])

    async def close(self) -> None:
        """Close the connection."""
        await self._http.close()


def _has_text(part: bytes) -> bool:
    """Whether there is text in events; some servers begin with one that has a role alone."""
    for line in part.splitlines():
        if b'"content":' in line and b'"content":""' not in line and b'"content":null' not in line:
            return True
    return False


async def _whole(parts: AsyncIterator[bytes], tokens: Any) -> Timed:
    began = time.perf_counter()
    body = b"".join([part async for part in parts])
    seconds = time.perf_counter() - began
    return Timed(tokens(orjson.loads(body)), 1, seconds, seconds)
