"""The contract of the run log: the text of an answer, before anyone sees it.

Each writing of an answer from byte 0 has a stream of its own, created once by its
opening entry `<attempt>-0`; everything else is appended only to a stream that
exists. Entry ids only grow, so a taker that appends `<attempt>-0` fences every
older attempt. Expiry is set with the opening entry and renewed while the run lives.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

# The attempt and number of an entry; they only grow.
Place = tuple[int, int]
BEGINNING: Place = (0, 0)


class LogUnavailable(Exception):
    """The log's server is away, full or too slow; the write may or may not have happened."""


class LogFenced(Exception):
    """A later attempt has written: whoever gets this must stop."""


class LogMissing(Exception):
    """The stream does not exist (any more)."""


class LogFull(Exception):
    """The answer has reached the log's bound; nothing was written."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A piece of the answer, or (with neither text nor finish) an opening or a fence."""

    attempt: int
    number: int
    # Bytes of the answer before this text.
    offset: int
    text: str = ""
    token_ids: tuple[int, ...] = ()
    # Set on the entry with the engine's last token.
    finish_reason: str | None = None
    # Set on the last event: the run is committed and everything is in place.
    last: bool = False

    @property
    def place(self) -> Place:
        """Where it stands in its stream."""
        return self.attempt, self.number


@dataclass(frozen=True, slots=True)
class LogLimits:
    """The bounds of one stream. They refuse; nothing is ever trimmed."""

    # UTF-8 bytes of text in one answer.
    max_bytes: int = 4 * 1024 * 1024
    # Entries of one attempt.
    max_entries: int = 200_000
    # How long a stream lasts after its opening or its latest renewal.
    ttl_seconds: float = 900.0

    def check(self, entry: LogEntry) -> None:
        """Raise LogFull if the entry does not fit; the last entry always does."""
        if entry.last:
            return
        if entry.number > self.max_entries:
            raise LogFull(f"the answer has reached {self.max_entries} entries")
        if entry.offset + len(entry.text.encode()) > self.max_bytes:
            raise LogFull(f"the answer has reached {self.max_bytes} bytes")


class RunLog(Protocol):
    """Streams of entries, one stream a writing."""

    async def ping(self) -> None:
        """Return when the server answers and its policy keeps what is written."""

    async def close(self) -> None:
        """Let go of the connections."""

    async def create(self, run_id: str, attempt: int) -> str:
        """Create the stream of a writing by its opening entry, with its expiry; its name.

        Raises LogFenced if it exists already.
        """

    async def append(self, stream: str, entry: LogEntry) -> None:
        """Append; returns when the server has acknowledged.

        Appends of one loop tick share a pipeline, in order. Raises LogFenced,
        LogMissing, LogFull, LogUnavailable.
        """

    async def fence(self, stream: str, attempt: int) -> None:
        """Append `<attempt>-0`: from now on every older attempt is refused.

        Raises LogFenced, LogMissing, LogUnavailable.
        """

    async def read(self, stream: str) -> Sequence[LogEntry]:
        """Read all entries, oldest first. Raises LogMissing, LogUnavailable."""

    def follow(self, stream: str, after: Place = BEGINNING) -> AsyncGenerator[LogEntry, None]:
        """Read the entries beyond `after` and wait for more, until the `last` one.

        Many followers share few connections. Raises LogMissing when the stream goes away,
        LogUnavailable.
        """

    async def renew(self, stream: str) -> None:
        """Put the expiry off. Raises LogMissing, LogUnavailable."""

    async def delete(self, stream: str) -> None:
        """Remove the stream, if it is there. Raises LogUnavailable."""
