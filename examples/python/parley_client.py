"""Asks Parley a question, and reads the answer to its end whatever breaks in between.

    python parley_client.py http://127.0.0.1:8080 "What is the capital of France?"

The text goes to stdout, all else to stderr; the exit status is 1 when there is no whole
answer. An API key is read from `PARLEY_API_KEY`. Needs Python 3.11 and httpx. From code:

    async with aclosing(ask(url, question)) as events:
        async for event in events:
            if event.name == "delta":
                print(event.data["text"], end="")
"""

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx

# Refusals that mean "not now". What was refused may be sent again, under its key.
PASSING: Final = frozenset({408, 409, 429, 502, 503, 504})
FIRST_PAUSE: Final = 0.25
CONNECT_SECONDS: Final = 10.0

log = logging.getLogger(__name__)


class ParleyError(Exception):
    """There is no whole answer. `code` as in docs/api/errors.md, or `gave_up`."""

    def __init__(self, code: str, detail: str, *, status: int = 0, retry_after: float = 0) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.status, self.retry_after = code, status, retry_after


@dataclass(frozen=True, slots=True)
class Event:
    """`run`, `queued`, `delta` or `done`, with its data as docs/api.md has it."""

    name: str
    id: str
    data: dict[str, Any]


async def ask(
    url: str,
    question: str,
    *,
    chat_id: str = "",
    api_key: str = "",
    user: str = "",
    options: Mapping[str, Any] | None = None,
    deadline: float = 300.0,
    silence: float = 45.0,
    longest_pause: float = 5.0,
) -> AsyncGenerator[Event, None]:
    """Yield an answer's events: `run` once, each piece of text once, `done` at last.

    A new chat is made where `chat_id` is empty. In seconds: `deadline` for all of it (let it
    be longer than the option `timeoutSeconds`); `silence` on a connection before it is given
    up, as something comes every 15 s; `longest_pause` between two tries. Leaving early does
    not stop the answer, `POST /runs/{runID}/cancel` does.

    Raises ParleyError: refused, `failed`, or the deadline has passed.
    """
    headers = {"X-User-ID": user} if user else {}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    path = f"/chat/{quote(chat_id, safe='')}/completion" if chat_id else "/chat"
    body: dict[str, Any] = {"message": question, "stream": True}
    if options:
        body["options"] = dict(options)
    timeout = httpx.Timeout(silence, connect=min(CONNECT_SECONDS, silence))
    clock = asyncio.get_running_loop().time
    end, pause = clock() + deadline, FIRST_PAUSE
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout) as http:
        asked = _Asked(http, path, body)
        while True:
            wait, why = 0.0, "the stream ended early"
            try:
                async with aclosing(asked.rest(end)) as events:
                    async for event in events:
                        if event.name != "queued":
                            pause = FIRST_PAUSE
                        yield event
                        if event.name == "done":
                            return
            except httpx.UnsupportedProtocol:
                raise
            except httpx.TransportError as error:
                why = type(error).__name__
            except TimeoutError:
                why = "the deadline has passed"
            except ParleyError as error:
                if error.status not in PASSING:
                    raise
                wait, why = error.retry_after, str(error)
            # Not all at once: clients that lost the same server come back spread out.
            wait = max(wait, min(pause, longest_pause) * random.uniform(0.5, 1))  # noqa: S311
            pause *= 2
            if clock() + wait >= end:
                raise ParleyError("gave_up", f"{asked.place}: {why}")
            log.warning("%s: %s; trying again in %.1f s", asked.place, why, wait)
            await asyncio.sleep(wait)


class _Asked:
    """One question, and how much of its answer has come."""

    def __init__(self, http: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> None:
        self._http, self._path, self._body = http, path, body
        # One key for all tries: however often it is sent, it is one question.
        self._key = uuid.uuid4().hex
        self._run, self._position = "", "0"

    @property
    def place(self) -> str:
        """Where reading stands, in words."""
        return f"run {self._run or 'not begun'}, byte {self._position}"

    async def rest(self, end: float) -> AsyncGenerator[Event, None]:
        """Ask once, or once more, and yield what is new. Raises ParleyError for `failed`."""
        async with aclosing(_events(self._http, self._request(), end)) as events:
            async for event in events:
                if event.name == "failed":
                    raise _error(event.data)
                if event.name == "delta":
                    self._position = event.id
                elif event.name == "run":
                    if self._run:  # Told again at the beginning of each stream.
                        continue
                    self._run = event.data["runID"]
                yield event

    def _request(self) -> httpx.Request:
        if self._run:
            last = {"Last-Event-ID": self._position}
            return self._http.build_request("GET", f"/runs/{self._run}/events", headers=last)
        key = {"Idempotency-Key": self._key}
        return self._http.build_request("POST", self._path, json=self._body, headers=key)


async def _events(
    http: httpx.AsyncClient, request: httpx.Request, end: float
) -> AsyncGenerator[Event, None]:
    """Yield the whole events of one response; a broken one at its end is dropped."""
    async with asyncio.timeout_at(end):
        response = await http.send(request, stream=True)
    try:
        if response.status_code not in (200, 201):
            async with asyncio.timeout_at(end):
                await response.aread()
            raise _refusal(response)
        # Cut at bytes: a character may be in two chunks, and `aiter_lines` also cuts at
        # characters such as U+2028, which are text here.
        chunks, rest = response.aiter_bytes(), b""
        while True:
            async with asyncio.timeout_at(end):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            *blocks, rest = (rest + chunk).split(b"\n\n")
            for block in blocks:
                lines = [line.partition(": ") for line in block.decode().split("\n")]
                fields = {name: value for name, _, value in lines if name}
                if "data" in fields:
                    yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
    finally:
        await response.aclose()


def _refusal(response: httpx.Response) -> ParleyError:
    try:
        problem = response.json()
    except ValueError:
        problem = None  # Of something in between, not of Parley.
    if not isinstance(problem, dict):
        problem = {"code": "refused", "title": f"HTTP {response.status_code}"}
    after = response.headers.get("Retry-After", "")
    return _error(problem, response.status_code, float(after) if after.isdecimal() else 0.0)


def _error(problem: Mapping[str, Any], status: int = 0, retry_after: float = 0) -> ParleyError:
    detail = problem.get("detail") or problem.get("title", "")
    return ParleyError(problem.get("code", ""), detail, status=status, retry_after=retry_after)


async def _print(arguments: argparse.Namespace) -> None:
    events = ask(
        arguments.url,
        arguments.question,
        chat_id=arguments.chat,
        api_key=os.environ.get("PARLEY_API_KEY", ""),
        user=arguments.user,
        deadline=arguments.deadline,
    )
    async with aclosing(events):
        async for event in events:
            if event.name == "delta":
                sys.stdout.buffer.write(event.data["text"].encode())
                sys.stdout.buffer.flush()
            elif event.name == "run":
                log.warning("run %(runID)s in chat %(chatID)s", event.data)


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description="Ask Parley a question.")
    parser.add_argument("url", help="of the gateway, as http://127.0.0.1:8080")
    parser.add_argument("question")
    parser.add_argument("--chat", default="", help="go on in this chat")
    parser.add_argument("--user", default="", help="ask as this user")
    parser.add_argument("--deadline", type=float, default=300.0, help="seconds for all of it")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        asyncio.run(_print(parser.parse_args()))
    except (ParleyError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence, not a trace
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
