"""The platform's REST contract over gevent, with streams read as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from geventhttpclient import HTTPClient

from parley_loadtest.failures import RequestFailed, from_problem
from parley_loadtest.sse import EventParser
from parley_loadtest.timing import AnswerTiming


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as a person got it."""

    chat_id: str
    text: str
    finish_reason: str
    cache_status: str
    """`left` when the person did not wait for the end."""
    tokens: int
    timing: AnswerTiming
    left: bool = False


class ParleyClient:
    """One person's connection. Every method raises `RequestFailed` or an OSError.

    Args:
        host: base URL of a gateway.
        api_key: sent as a bearer token; empty: none.
        timeout: seconds without a byte after which a request fails.
    """

    def __init__(self, host: str, api_key: str = "", timeout: float = 120.0) -> None:
        headers = {"Content-Type": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._http = HTTPClient.from_url(
            host, headers=headers, concurrency=1, connection_timeout=10.0, network_timeout=timeout
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def ask(self, path: str, body: dict[str, Any]) -> Answer:
        """Ask and wait for the whole answer."""
        timing = AnswerTiming(time.monotonic())
        answer = self.call("POST", path, {**body, "stream": False})
        return _read_answer(answer, timing)

    def ask_streamed(
        self, path: str, body: dict[str, Any], leave: Callable[[int], bool] = lambda _pieces: False
    ) -> Answer:
        """Ask and read the answer as it comes.

        Args:
            path: of the call.
            body: without `stream`.
            leave: told how many pieces have come; true: hang up.
        """
        timing = AnswerTiming(time.monotonic())
        response = self._http.request(
            "POST",
            path,
            body=orjson.dumps({**body, "stream": True}),
            headers={"Accept": "text/event-stream"},
        )
        # Leaving the block early hangs up: a socket with an unread answer is closed.
        with response:
            _refuse_problem(response)
            return self._read_stream(response, timing, leave)

    def _read_stream(
        self, response: Any, timing: AnswerTiming, leave: Callable[[int], bool]
    ) -> Answer:
        parser = EventParser()
        chat_id = ""
        text: list[str] = []
        while True:
            line = response.readline(b"\n")
            if not line:
                raise RequestFailed(
                    "the stream ended without a last event", f"so far: {''.join(text)}"
                )
            event = parser.line(line)
            if event is None:
                continue
            if event.type == "delta":
                timing.piece(time.monotonic())
                text.append(orjson.loads(event.data)["text"])
                if leave(len(text)):
                    return Answer(chat_id, "".join(text), "", "left", 0, timing, left=True)
            elif event.type == "run":
                chat_id = orjson.loads(event.data)["chatID"]
            elif event.type == "failed":
                response.read()
                problem = orjson.loads(event.data)
                raise from_problem(problem.get("status", 0), event.data)
            elif event.type == "done":
                response.read()
                answer = _read_answer(orjson.loads(event.data), timing)
                if answer.text != "".join(text):
                    raise RequestFailed(
                        "the joined deltas are not the stored answer", "".join(text)
                    )
                return answer

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make a plain call; an empty answer is an empty dict."""
        encoded = b"" if body is None else orjson.dumps(body)
        response = self._http.request(method, path, body=encoded)
        with response:
            _refuse_problem(response)
            content = response.read()
        if not content:
            return {}
        result: dict[str, Any] = orjson.loads(content)
        return result


def _refuse_problem(response: Any) -> None:
    if response.status_code >= 300:
        retry_after = str(response.get("retry-after") or "")
        raise from_problem(response.status_code, bytes(response.read()), retry_after)


def _read_answer(body: dict[str, Any], timing: AnswerTiming) -> Answer:
    try:
        message = body["message"]
        return Answer(
            chat_id=body["chatID"],
            text=message["content"],
            finish_reason=message.get("finishReason", ""),
            cache_status=body["cache"]["status"],
            tokens=body["usage"]["completionTokens"],
            timing=timing,
        )
    except (KeyError, TypeError) as exc:
        raise RequestFailed(f"the answer lacks {exc}", repr(body)) from exc
