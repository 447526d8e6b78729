"""The text of an answer while it is made here, and those who read it.

Readers are driven by offset: each takes everything beyond its own position when it
is ready. There is no queue per reader, so one that is slow costs nothing and holds
nobody up, and one that comes late reads from wherever it wants.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum

from parley_session.domain.errors import bad_event_id
from parley_session.domain.model import Chat, Run


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the answer that a reader takes at once."""

    text: str
    # Bytes of the answer up to the end of this text.
    end: int


@dataclass(frozen=True, slots=True)
class Queued:
    """The run waits to be made."""

    # 1: it is the next one.
    position: int
    # Seconds until it is made, about; None: nobody can tell yet.
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is committed and everything is in place: the last event."""

    run: Run
    chat: Chat


class Gone(StrEnum):
    """Why a feed closed without a last event."""

    # Another attempt makes the run: readers go on from what is shared.
    MOVED = "moved"
    # The chat was deleted.
    DELETED = "deleted"
    # The store was away until the run's deadline had passed.
    UNSTORED = "unstored"


class LiveRun:
    """One answer being made by this replica.

    One writer (`append`, `close`), any number of readers. All of it belongs to one
    event loop.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._pieces: list[str] = []
        # Bytes of the answer up to the end of each piece.
        self._ends: list[int] = []
        self._changed = asyncio.Event()
        # An engine draws it, or has, or none needs to; until then it is on its way there.
        self.drawn = False
        self._held = False
        self._ending: Ended | Gone | None = None

    @property
    def length(self) -> int:
        """Bytes of the answer so far."""
        return self._ends[-1] if self._ends else 0

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._pieces)

    @property
    def ending(self) -> Ended | Gone | None:
        """How the feed ended; None: it goes on."""
        return self._ending

    def append(self, text: str, end: int) -> None:
        """Add text; `end` is the length of the answer in bytes with it."""
        self._pieces.append(text)
        self._ends.append(end)
        self._wake()

    def hold(self) -> None:
        """Say that the run is held here."""
        self._held = True
        self._wake()

    async def held(self) -> None:
        """Wait until the run is held here, or is not to be made here after all."""
        while not self._held and self._ending is None:
            await self._changed.wait()

    def close(self, ending: Ended | Gone) -> None:
        """End the feed; the first ending stands."""
        if self._ending is None:
            self._ending = ending
            self._wake()

    async def closed(self) -> Ended | Gone:
        """Wait for the end."""
        while self._ending is None:
            await self._changed.wait()
        return self._ending

    def check(self, offset: int) -> None:
        """Raise `bad_event_id` for an offset that is inside a character of what is there."""
        index = bisect_right(self._ends, offset)
        if index < len(self._ends):
            tail_of(self._pieces[index], offset - (self._ends[index - 1] if index else 0))

    async def read(self, offset: int) -> AsyncGenerator[Piece, None]:
        """Yield what lies beyond `offset` bytes, until the feed has ended and is read.

        An offset beyond what is there yet is waited for: the reader may have had it
        from another attempt. Raises `bad_event_id` for an offset that is inside a
        character, or (once the run has ended) beyond the end.
        """
        ends = self._ends
        position = offset
        while True:
            index = bisect_right(ends, position)
            if index < len(ends):
                text = self._from(index, position)
                position = ends[-1]
                yield Piece(text, position)
            elif self._ending is not None:
                if isinstance(self._ending, Ended):
                    check_end(self._ending.run, position, self.length)
                return
            else:
                await self._changed.wait()

    def _from(self, index: int, position: int) -> str:
        """Return the text from byte `position`, which lies in piece `index`, to the end."""
        pieces = self._pieces
        begin = self._ends[index - 1] if index else 0
        if position == begin:
            # The usual reader is up to date and gets the very string that came in.
            return pieces[index] if index == len(pieces) - 1 else "".join(pieces[index:])
        first = tail_of(pieces[index], position - begin)
        return first + "".join(pieces[index + 1 :])

    def _wake(self) -> None:
        # Every waiter of this moment is woken; the next wait is for the next change.
        self._changed.set()
        self._changed.clear()


def check_end(run: Run, position: int, length: int) -> None:
    """Raise `bad_event_id` for a position beyond the end of an answer of `length` bytes.

    An answer that failed may have lost what its readers had of it.
    """
    if position > length and run.error is None:
        raise bad_event_id()


def tail_of(text: str, offset: int) -> str:
    """Return `text` without its first `offset` bytes of UTF-8.

    Raises `bad_event_id` if that is inside a character or beyond the end.
    """
    encoded = text.encode()
    if offset > len(encoded):
        raise bad_event_id()
    try:
        return encoded[offset:].decode()
    except UnicodeDecodeError:
        raise bad_event_id() from None
