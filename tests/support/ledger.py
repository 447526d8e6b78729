"""What the clients of a platform know, written down outside of it.

Every client writes what it sent, what was acknowledged, and every piece of text that it
read, with its place. At the end `support.verdict` holds this against what the REST
interface and the database say. The ledger knows nothing of the platform's code.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import IO, Any


@dataclass(slots=True)
class Ask:
    """A message that a client sent, known by its text, which no other message has."""

    client: str
    text: str
    sent_at: float
    # The chat that it was sent to; empty: it was to begin one.
    into: str = ""
    # Times that it was sent, under the same key.
    tries: int = 0
    # What the platform said when it took the message: these are promises.
    chat: str = ""
    run: str = ""
    acknowledged_at: float | None = None
    # Why it was refused or went without an answer, one code or sentence a try.
    refusals: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer: bytes `start` to `end`, read at `at` (monotonic seconds)."""

    start: int
    end: int
    text: str
    at: float


@dataclass(slots=True)
class Reading:
    """All that one reader read of one answer, whatever it was connected to."""

    run: str
    reader: str
    began_at: float
    deltas: list[Delta] = field(default_factory=list)
    # Times at which its stream broke.
    breaks: list[float] = field(default_factory=list)
    # "done", "failed", or empty: the reader was never told how it ended.
    ending: str = ""
    ended_at: float | None = None
    # The whole answer as the last event had it; the code of a failure.
    content: str | None = None
    code: str = ""

    @property
    def position(self) -> int:
        """Bytes of the answer that it has: what it resumes from."""
        return self.deltas[-1].end if self.deltas else 0

    @property
    def text(self) -> str:
        """What it has read."""
        return "".join(delta.text for delta in self.deltas)

    def moments(self) -> list[float]:
        """The times at which something came, from the beginning to the end."""
        last = [] if self.ended_at is None else [self.ended_at]
        return [self.began_at, *(delta.at for delta in self.deltas), *last]

    def pauses(self, since: float = 0.0) -> list[tuple[float, float]]:
        """The waits between two things that came, as (end, seconds), ending after `since`."""
        moments = self.moments()
        return [(after, after - before) for before, after in pairwise(moments) if after >= since]


class Ledger:
    """One test's book. `path`: every entry is also a JSON line there, as it is made."""

    def __init__(
        self, path: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.asks: list[Ask] = []
        self.readings: dict[tuple[str, str], Reading] = {}
        self._clock = clock
        self._file: IO[str] | None = path.open("a", buffering=1) if path else None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def now(self) -> float:
        """The time that entries are given."""
        return self._clock()

    # asking -------------------------------------------------------------------

    def sends(self, client: str, text: str, into: str = "") -> Ask:
        """A message is about to be sent for the first time."""
        assert all(ask.text != text for ask in self.asks), "texts must differ"
        ask = Ask(client, text, self.now(), into)
        self.asks.append(ask)
        self._write("sends", client=client, text=text, into=into)
        return ask

    def tries(self, ask: Ask) -> None:
        """The message is sent, for the first time or again."""
        ask.tries += 1
        self._write("tries", text=ask.text, number=ask.tries)

    def refused(self, ask: Ask, why: str) -> None:
        """A try was refused, or broke before it was acknowledged."""
        ask.refusals.append(why)
        self._write("refused", text=ask.text, why=why)

    def acknowledged(self, ask: Ask, chat: str, run: str) -> None:
        """The platform has taken the message; taken twice, it is the same run."""
        if ask.run and (ask.chat, ask.run) != (chat, run):
            raise AssertionError(f"{ask.text}: acknowledged as {ask.run}, then as {run}")
        ask.chat, ask.run = chat, run
        ask.acknowledged_at = ask.acknowledged_at or self.now()
        self._write("acknowledged", text=ask.text, chat=chat, run=run)

    # reading ------------------------------------------------------------------

    def reads(self, run: str, reader: str) -> Reading:
        """A reader begins to read an answer, or goes on."""
        reading = self.readings.get((run, reader))
        if reading is None:
            reading = self.readings[run, reader] = Reading(run, reader, self.now())
            self._write("reads", run=run, reader=reader)
        return reading

    def delta(self, reading: Reading, text: str, end: int) -> None:
        """Text came; `end` is its place as the platform says it."""
        delta = Delta(end - len(text.encode()), end, text, self.now())
        reading.deltas.append(delta)
        self._write("delta", run=reading.run, reader=reading.reader, **asdict(delta))

    def broke(self, reading: Reading, why: str) -> None:
        """The reader's stream ended without a last event."""
        reading.breaks.append(self.now())
        self._write("broke", run=reading.run, reader=reading.reader, why=why)

    def ended(
        self, reading: Reading, ending: str, content: str | None = None, code: str = ""
    ) -> None:
        """The last event came."""
        reading.ending, reading.content, reading.code = ending, content, code
        reading.ended_at = self.now()
        self._write("ended", run=reading.run, reader=reading.reader, ending=ending, code=code)

    # asking the book ------------------------------------------------------------

    def readings_of(self, run: str) -> list[Reading]:
        """What all readers read of an answer."""
        return [reading for (of, _), reading in self.readings.items() if of == run]

    def acknowledged_asks(self) -> list[Ask]:
        """Everything that the platform has promised to answer, in the order of promises."""
        taken = [ask for ask in self.asks if ask.acknowledged_at is not None]
        return sorted(taken, key=lambda ask: ask.acknowledged_at or 0.0)

    def _write(self, entry: str, **members: Any) -> None:
        if self._file is not None:
            line = {"at": round(self.now(), 6), "entry": entry, **members}
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
