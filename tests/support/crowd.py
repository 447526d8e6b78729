"""Many clients that stream answers, write all of it down, and never give up early.

A client talks to any gateway. A stream that breaks, or is silent for too long, is taken
up at the next gateway from the byte where it stopped. A request that is refused, or
breaks before it is acknowledged, is sent again under its `Idempotency-Key`. Every wait
has a bound; what a client did not get in time is left in the ledger for the verdict.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx

from support.ledger import Ask, Ledger, Reading
from support.poll import until
from support.sse import Event, parse

# Refusals that say: not now. A 500 is a defect, and never passed over.
PASSING = frozenset({409, 429, 502, 503, 504})
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
TRANSPORT = (httpx.TransportError, OSError)


class GaveUp(AssertionError):
    """A client did not get what it wanted in its time."""


class Refused(Exception):
    """A gateway answered with a problem."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code = status, code


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds."""

    # A stream on which nothing comes for so long, not even a comment, is given up.
    silence: float = 4.0
    connect: float = 2.0
    # One turn, with everything that befalls it.
    turn: float = 90.0


class Crowd:
    """`size` clients of the gateways at `urls`, one chat each.

    `witnesses`: so many of them have a second reader of the same answer, which begins at
    its first byte. `options` are those of every answer.
    """

    def __init__(
        self,
        urls: Sequence[str],
        ledger: Ledger,
        *,
        size: int = 24,
        witnesses: int = 4,
        patience: Patience | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.urls = urls
        self.ledger = ledger
        self.patience = patience or Patience()
        self.options = options or {}
        self.clients = [
            Client(self, number, urls, witnessed=number < witnesses) for number in range(size)
        ]

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(client.http.aclose() for client in self.clients))

    def behind(self) -> Crowd:
        """As many clients of the same users, whose messages wait for their turn (see `join`)."""
        return Crowd(
            self.urls,
            self.ledger,
            size=len(self.clients),
            witnesses=0,
            patience=self.patience,
            options={**self.options, "whenBusy": "queue"},
        )

    def join(self, other: Crowd) -> None:
        """Go on in the chats of another crowd."""
        for client, ahead in zip(self.clients, other.clients, strict=True):
            client.chat = ahead.chat

    async def say(self, directive: str = "") -> None:
        """Every client sends its next message at once, and reads the answer to its end.

        Raises GaveUp with what went wrong, once every client is through.
        """
        outcomes = await asyncio.gather(
            *(client.turn(directive) for client in self.clients), return_exceptions=True
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for failure in failures:
            if not isinstance(failure, GaveUp):
                raise failure
        if failures:
            some = "; ".join(map(str, failures[:5]))
            raise GaveUp(f"{len(failures)} of {len(self.clients)} gave up: {some}")

    async def repeat(self) -> None:
        """Every client sends all that it sent once more, under the same keys."""
        await asyncio.gather(*(client.repeat() for client in self.clients))

    def in_progress(self, deltas: int = 1) -> list[Reading]:
        """What clients read now that is not at its end, having come so many times."""
        readings = (client.reading for client in self.clients)
        return [r for r in readings if r and not r.ending and len(r.deltas) >= deltas]

    async def acknowledged(self, turn: int) -> None:
        """Wait until the messages of a turn are taken, all of them."""
        await until(
            lambda: all(client.turns == turn and client.reading for client in self.clients),
            timeout=30,
            what="every message acknowledged",
        )

    async def in_mid_answer(self, count: int, deltas: int = 3) -> list[Reading]:
        """Wait until so many answers are in progress at once, and return these."""
        return await until(
            lambda: found if len(found := self.in_progress(deltas)) >= count else None,
            timeout=30,
            what=f"{count} answers in progress at once",
        )


class Client:
    """One user with one chat."""

    def __init__(self, crowd: Crowd, number: int, urls: Sequence[str], *, witnessed: bool) -> None:
        patience = crowd.patience
        self.name = f"user-{number}"
        self.chat = ""
        self.reading: Reading | None = None
        self.http = httpx.AsyncClient(
            headers={"x-user-id": self.name},
            timeout=httpx.Timeout(patience.silence, connect=patience.connect),
            verify=False,  # there is no TLS, and a context for it is dear
            trust_env=False,
        )
        self._crowd = crowd
        self._ledger = crowd.ledger
        # Neighbours begin at different gateways.
        self._urls = list(urls)
        self._at = number
        # Of what it sent, by its text.
        self._keys: dict[str, str] = {}
        self._witnessed = witnessed
        self._witness: asyncio.Task[None] | None = None
        self.turns = 0

    async def turn(self, directive: str) -> None:
        """Send a message and read its answer to the end. Raises GaveUp."""
        self.turns += 1
        self.reading = None
        text = f"{self.name}, turn {self.turns}, {uuid.uuid4().hex[:8]} {directive}".rstrip()
        try:
            async with asyncio.timeout(self._crowd.patience.turn):
                reading = await self._ask(text)
                await self._resume(reading, self._at)
                if self._witness is not None:
                    await self._witness
        except TimeoutError:
            raise GaveUp(f"{text}: no end in time; {self._troubles(text)}") from None
        finally:
            if self._witness is not None:
                self._witness.cancel()
                await asyncio.wait({self._witness})
                self._witness = None

    def _troubles(self, text: str) -> str:
        refusals = next(ask.refusals[-3:] for ask in self._ledger.asks if ask.text == text)
        return f"refused by {refusals}, {len(self.reading.breaks) if self.reading else 0} breaks"

    # asking -------------------------------------------------------------------

    async def _ask(self, text: str) -> Reading:
        """Send a message until it is acknowledged, and read what comes of its answer."""
        ask = self._ledger.sends(self.name, text, self.chat)
        self._keys[ask.text] = uuid.uuid4().hex
        pause = FIRST_PAUSE
        while True:
            events = self._post(ask)
            why = "ended early"
            try:
                async with aclosing(events):
                    async for event in events:
                        if event.name == "run":
                            self.reading = self._acknowledged(ask, event)
                        elif self.reading is not None:
                            self._note(self.reading, event)
            except TRANSPORT as error:
                why = repr(error)
            except Refused as refusal:
                if refusal.status not in PASSING:
                    raise GaveUp(f"{ask.text}: {refusal}") from None
                why = str(refusal)
            if self.reading is not None:
                if not self.reading.ending:
                    self._broke(self.reading, why)
                return self.reading
            self._ledger.refused(ask, why)
            self._at += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _post(self, ask: Ask) -> AsyncGenerator[Event, None]:
        """Send a message under its key."""
        self._ledger.tries(ask)
        path = f"/chat/{ask.into}/completion" if ask.into else "/chat"
        body = {"message": ask.text, "stream": True, "options": self._crowd.options}
        headers = {"idempotency-key": self._keys[ask.text]}
        return self._events("POST", self._at, path, json=body, headers=headers)

    async def repeat(self) -> None:
        """Send everything once more under its key: it is the same run, with the same text."""
        for ask in [ask for ask in self._ledger.asks if ask.text in self._keys]:
            async with aclosing(self._post(ask)) as events:
                async for event in events:
                    if event.name == "run":
                        run = event.data["runID"]
                        self._ledger.acknowledged(ask, event.data["chatID"], run)
                        reading = self._ledger.reads(run, f"{self.name}'s replay")
                    else:
                        self._note(reading, event)

    def _acknowledged(self, ask: Ask, event: Event) -> Reading:
        self.chat, run = event.data["chatID"], event.data["runID"]
        self._ledger.acknowledged(ask, self.chat, run)
        if self._witnessed:
            witness = self._ledger.reads(run, f"{self.name}'s witness")
            self._witness = asyncio.create_task(self._resume(witness, self._at + 1))
        return self._ledger.reads(run, self.name)

    # reading ------------------------------------------------------------------

    async def _resume(self, reading: Reading, at: int) -> None:
        """Read an answer from where it stopped, at one gateway after the other."""
        pause = FIRST_PAUSE
        while not reading.ending:
            position = reading.position
            last = {"last-event-id": str(position)}
            events = self._events("GET", at, f"/runs/{reading.run}/events", headers=last)
            why = "ended early"
            try:
                async with aclosing(events):
                    async for event in events:
                        self._note(reading, event)
            except TRANSPORT as error:
                why = repr(error)
            except Refused as refusal:
                if refusal.status not in PASSING:
                    raise GaveUp(f"{reading.run} from {position} on: {refusal}") from None
                why = str(refusal)
            if not reading.ending:
                self._broke(reading, why)
                at += 1
                if reading.position > position:
                    pause = FIRST_PAUSE
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _note(self, reading: Reading, event: Event) -> None:
        if event.name == "delta":
            self._ledger.delta(reading, event.data["text"], int(event.id))
        elif event.name == "done":
            self._ledger.ended(reading, "done", event.data["message"]["content"])
        elif event.name == "failed":
            self._ledger.ended(reading, "failed", code=event.data["code"])

    def _broke(self, reading: Reading, why: str) -> None:
        self._ledger.broke(reading, why)

    async def _events(
        self, method: str, at: int, path: str, **request: Any
    ) -> AsyncGenerator[Event, None]:
        """The events of one response as they come. Raises Refused and transport errors."""
        url = self._urls[at % len(self._urls)]
        async with self.http.stream(method, url + path, **request) as response:
            if response.status_code not in (200, 201):
                await response.aread()
                raise Refused(response.status_code, _code(response))
            rest = ""
            async for text in response.aiter_text():
                *blocks, rest = (rest + text).split("\n\n")
                for block in blocks:
                    if not block.startswith(":"):
                        yield parse(block)


def _code(response: httpx.Response) -> str:
    try:
        return str(response.json().get("code", ""))
    except ValueError:
        return response.text[:80]
