"""A person who holds chats: asks, reads, thinks, asks on, now and then just leaves.

No Locust in here: `Person` acts through a client and reports through a
recorder, so that its behaviour can be tested without a server.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Protocol

from parley_loadtest.client import Answer
from parley_loadtest.failures import RequestFailed
from parley_loadtest.options import PersonOptions
from parley_loadtest.prompts import Asker

CHAT = "POST /chat"
COMPLETION = "POST /chat/…/completion"
MAX_TURNS = 50
MAX_RETRY_AFTER = 30.0
BREATH = 0.5
"""Seconds before anything is tried again after a failure: nobody retries in a tight loop."""


class Client(Protocol):
    """What a person needs of the service."""

    def ask(self, path: str, body: dict[str, Any]) -> Answer:
        """Ask and wait for the whole answer."""
        ...

    def ask_streamed(self, path: str, body: dict[str, Any], leave: Callable[[int], bool]) -> Answer:
        """Ask and read the answer as it comes."""
        ...

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make a plain call."""
        ...


class Recorder(Protocol):
    """Runs one request and counts it; None when it failed."""

    def __call__(self, kind: str, name: str, request: Callable[[], Any]) -> Any:
        """Run `request`, count it under `kind` and `name`."""
        ...


class Person:
    """One person.

    Args:
        user: their id; empty: the key says who they are.
        options: how they behave.
        client: their connection.
        record: counts requests.
        answered: told of every answer.
        sleep: waits so many seconds.
        draw: the source of chance.
    """

    def __init__(
        self,
        user: str,
        options: PersonOptions,
        client: Client,
        *,
        record: Recorder,
        answered: Callable[[Answer], None],
        sleep: Callable[[float], None],
        draw: random.Random,
    ) -> None:
        self._user = user
        self._options = options
        self._client = client
        self._record = record
        self._answered = answered
        self._sleep = sleep
        self._draw = draw
        self._asker = Asker(options.scripts, options.hit_share, draw)

    def hold_chat(self) -> None:
        """Hold one chat from its first question to its end."""
        talk = self._asker.talk(self._turns())
        answer = self._ask(CHAT, "/chat", talk.first, new=True)
        if answer is None:
            return
        if not answer.left and not talk.repeated and answer.finish_reason == "stop":
            self._asker.answered(talk.first)
        chat = answer.chat_id
        for question in talk.follow_ups:
            self.think()
            if answer.left:
                # Back later, to read what was answered meanwhile; then done with it.
                self._record("REST", "GET /chat/…", lambda: self._call("GET", f"/chat/{chat}"))
                return
            answer = self._ask(COMPLETION, f"/chat/{chat}/completion", question)
            if answer is None:
                return
        if self._draw.random() < self._options.delete_share:
            self._record("REST", "DELETE /chat/…", lambda: self._call("DELETE", f"/chat/{chat}"))
        else:
            self._record("REST", "GET /chats", lambda: self._call("GET", "/chats"))

    def think(self) -> None:
        """Wait as people do: mostly short, at times long, never above ten times the average."""
        if self._options.think > 0:
            drawn = self._draw.lognormvariate(-0.5, 1.0) * self._options.think
            self._sleep(min(drawn, 10 * self._options.think))

    def _turns(self) -> int:
        turns = 1
        go_on = 1.0 - 1.0 / max(1.0, self._options.turns)
        while turns < MAX_TURNS and self._draw.random() < go_on:
            turns += 1
        return turns

    def _ask(self, name: str, path: str, question: str, *, new: bool = False) -> Answer | None:
        body: dict[str, Any] = {"message": question}
        if self._user:
            body["userID"] = self._user
        if new and self._options.model:
            body["model"] = self._options.model
        if self._options.max_tokens:
            body["options"] = {"maxTokens": self._options.max_tokens}
        streamed = self._draw.random() < self._options.stream_share
        leaves = streamed and self._draw.random() < self._options.leave_share
        leave_after = self._draw.randint(1, 4)

        def request() -> Answer:
            if not streamed:
                return self._client.ask(path, body)
            return self._client.ask_streamed(
                path, body, lambda pieces: leaves and pieces >= leave_after
            )

        answer: Answer | None = self._record("SSE" if streamed else "REST", name, request)
        if answer is not None:
            self._answered(answer)
        return answer

    def _call(self, method: str, path: str) -> dict[str, Any]:
        query = f"?userID={self._user}" if self._user else ""
        return self._client.call(method, path + query)

    def pause_after(self, failure: BaseException) -> None:
        """Wait as long as a refusal asks for, within reason; at the least, take a breath."""
        asked = failure.retry_after if isinstance(failure, RequestFailed) else 0.0
        self._sleep(min(max(asked, BREATH), MAX_RETRY_AFTER))
