"""A `RunLog` in memory: for tests, and the reference of what the contract means."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from parley_session.runs.log import (
    BEGINNING,
    LogEntry,
    LogFenced,
    LogLimits,
    LogMissing,
    LogUnavailable,
    Place,
)


@dataclass(slots=True)
class _Stream:
    expires_at: float
    entries: list[LogEntry] = field(default_factory=list)
    # Set and replaced whenever something happened to the stream.
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryRunLog:
    """Streams of one process.

    `clock` gives seconds. Expiry is noticed when a stream is next touched; after
    moving a clock of their own, tests call `sweep` to wake those who wait. While
    `away` is set, every method raises `LogUnavailable`.
    """

    def __init__(
        self, limits: LogLimits | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits or LogLimits()
        self._clock = clock
        self._away = False
        self._streams: dict[str, _Stream] = {}

    @property
    def away(self) -> bool:
        """Whether the log is unavailable."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        self._away = away
        self._wake_all()

    def sweep(self) -> None:
        """Remove what has expired, and wake those who follow it."""
        now = self._clock()
        for name in [n for n, stream in self._streams.items() if stream.expires_at <= now]:
            self._remove(name)

    def wipe(self) -> None:
        """Lose everything, as a server does that restarts empty."""
        for name in list(self._streams):
            self._remove(name)

    async def ping(self) -> None:
        """See `RunLog.ping`."""
        self._reach()

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    async def create(self, run_id: str, attempt: int) -> str:
        """See `RunLog.create`."""
        self._reach()
        self.sweep()
        name = f"{run_id}:{attempt}"
        if name in self._streams:
            raise LogFenced(name)
        stream = _Stream(self._clock() + self._limits.ttl_seconds)
        stream.entries.append(LogEntry(attempt, 0, 0))
        self._streams[name] = stream
        return name

    async def append(self, stream: str, entry: LogEntry) -> None:
        """See `RunLog.append`."""
        self._reach()
        self._limits.check(entry)
        self._add(stream, entry)

    async def fence(self, stream: str, attempt: int) -> None:
        """See `RunLog.fence`."""
        self._reach()
        self._add(stream, LogEntry(attempt, 0, 0))

    async def read(self, stream: str) -> Sequence[LogEntry]:
        """See `RunLog.read`."""
        self._reach()
        return list(self._find(stream).entries)

    async def follow(self, stream: str, after: Place = BEGINNING) -> AsyncGenerator[LogEntry, None]:
        """See `RunLog.follow`."""
        self._reach()
        entries = self._find(stream).entries
        position = bisect_right(entries, after, key=lambda entry: entry.place)
        while True:
            self._reach()
            kept = self._find(stream)
            while position < len(kept.entries):
                entry = kept.entries[position]
                position += 1
                yield entry
                if entry.last:
                    return
                self._reach()
                kept = self._find(stream)
            changed = kept.changed
            try:
                async with asyncio.timeout(max(0.0, kept.expires_at - self._clock())):
                    await changed.wait()
            except TimeoutError:
                # Expired by the clock of the loop; a renewal has moved it meanwhile, or not.
                self.sweep()

    async def renew(self, stream: str) -> None:
        """See `RunLog.renew`."""
        self._reach()
        self._find(stream).expires_at = self._clock() + self._limits.ttl_seconds

    async def delete(self, stream: str) -> None:
        """See `RunLog.delete`."""
        self._reach()
        self._remove(stream)

    def _add(self, name: str, entry: LogEntry) -> None:
        stream = self._find(name)
        top = stream.entries[-1]
        if (entry.attempt, entry.number) <= (top.attempt, top.number):
            raise LogFenced(name)
        stream.entries.append(entry)
        stream.wake()

    def _find(self, name: str) -> _Stream:
        self.sweep()
        stream = self._streams.get(name)
        if stream is None:
            raise LogMissing(name)
        return stream

    def _remove(self, name: str) -> None:
        stream = self._streams.pop(name, None)
        if stream is not None:
            stream.wake()

    def _wake_all(self) -> None:
        for stream in self._streams.values():
            stream.wake()

    def _reach(self) -> None:
        if self._away:
            raise LogUnavailable("the log is away")
