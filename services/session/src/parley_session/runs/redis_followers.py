"""Many followers of the run log on few connections.

A lane is one connection with one blocking XREAD over all the streams that it watches.
When a stream joins, an entry in the lane's own wake stream ends the XREAD, so that the
next one covers the new stream. A follower has a bounded buffer; one that is too slow
for it is told to read from the log again, and nothing is lost.

A blocked XREAD does not notice that a stream is gone, so streams that have been silent
are looked for now and then.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from parley_session.runs.log import LogEntry, LogMissing, LogUnavailable
from parley_session.runs.log_codec import EntryID, decode, format_id, parse_id
from parley_session.runs.log_metrics import LOG_FOLLOWERS
from parley_session.runs.redis_client import RedisLogOptions, bounded, open_client
from parley_session.runs.redis_writer import PipelineWriter

Page = list[tuple[EntryID, LogEntry]]
Rows = list[tuple[bytes, dict[bytes, bytes]]]

# Entries that wait for one follower.
_BUFFER = 1024
# Entries of one stream in one answer.
_COUNT = 256


class Subscription:
    """A follower's place at a lane."""

    def __init__(self, key: bytes, *, behind: bool) -> None:
        self.key = key
        # The lane may have read past the follower: it must read from the log.
        self._behind = behind
        self._buffer: deque[tuple[EntryID, LogEntry]] = deque()
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        if behind:
            self._changed.set()

    async def next(self) -> Page | None:
        """Wait for entries; None: read from the log what lies beyond your position.

        Raises LogMissing, LogUnavailable.
        """
        await self._changed.wait()
        if self._error is None:
            self._changed.clear()
        if self._behind:
            # From here on what comes is kept; what came before is in the log.
            self._behind = False
            return None
        if self._buffer:
            page = list(self._buffer)
            self._buffer.clear()
            return page
        if self._error is not None:
            raise self._error
        return None

    def push(self, page: Page) -> None:
        """Hand over entries; a follower whose buffer is full falls behind."""
        if self._behind:
            return
        if len(self._buffer) + len(page) > _BUFFER:
            self._buffer.clear()
            self._behind = True
        else:
            self._buffer.extend(page)
        self._changed.set()

    def fail(self, error: Exception) -> None:
        """End the subscription."""
        self._error = error
        self._changed.set()


@dataclass(slots=True)
class _Watched:
    position: EntryID
    moved: bool = True
    subscriptions: set[Subscription] = field(default_factory=set)


class Followers:
    """All followers of a process."""

    def __init__(self, options: RedisLogOptions, writer: PipelineWriter) -> None:
        self._client = open_client(options, connections=options.follow_connections)
        self._lanes = [
            _Lane(self._client, writer, options, number)
            for number in range(options.follow_connections)
        ]

    def subscribe(self, key: bytes, after: EntryID) -> Subscription:
        """Wait for what comes after an entry of a stream, which the follower has read."""
        watching = [lane for lane in self._lanes if lane.watches(key)]
        lane = watching[0] if watching else min(self._lanes, key=lambda each: each.load)
        LOG_FOLLOWERS.inc()
        return lane.subscribe(key, after)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Let a follower go."""
        LOG_FOLLOWERS.dec()
        for lane in self._lanes:
            lane.unsubscribe(subscription)

    async def close(self) -> None:
        """End all subscriptions and let go of the connections."""
        for lane in self._lanes:
            await lane.close()
        await self._client.aclose()


class _Lane:
    def __init__(
        self, client: Redis, writer: PipelineWriter, options: RedisLogOptions, number: int
    ) -> None:
        self._client = client
        self._writer = writer
        self._options = options
        self._streams: dict[bytes, _Watched] = {}
        self._wake_key = f"{options.key_prefix}wake:{uuid.uuid4().hex}:{number}".encode()
        self._woken_at = b"0-0"
        self._blocked = False
        self._task: asyncio.Task[None] | None = None
        self._wakes: set[asyncio.Task[None]] = set()

    @property
    def load(self) -> int:
        return len(self._streams)

    def watches(self, key: bytes) -> bool:
        return key in self._streams

    def subscribe(self, key: bytes, after: EntryID) -> Subscription:
        watched = self._streams.get(key)
        joins = watched is None
        subscription = Subscription(key, behind=not joins)
        if watched is None:
            watched = self._streams[key] = _Watched(after)
        watched.subscriptions.add(subscription)
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._run(), context=Context())
        elif self._blocked and joins:
            self._blocked = False  # one wake is enough until it blocks again
            wake = loop.create_task(self._wake(), context=Context())
            self._wakes.add(wake)
            wake.add_done_callback(self._wakes.discard)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        watched = self._streams.get(subscription.key)
        if watched is not None:
            watched.subscriptions.discard(subscription)
            if not watched.subscriptions:
                del self._streams[subscription.key]

    async def close(self) -> None:
        tasks = [*self._wakes, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._options.command_seconds)
        self._fail_all(LogUnavailable("closed"))

    async def _wake(self) -> None:
        # Without it the new stream is covered when the XREAD ends by itself, a little later.
        with suppress(LogUnavailable):
            ttl = round(self._options.limits.ttl_seconds * 1000)
            entry = (b"XADD", self._wake_key, b"MAXLEN", b"1", b"*", b"w", b"")
            await asyncio.gather(
                self._writer.write(entry),
                self._writer.write((b"PEXPIRE", self._wake_key, ttl)),
            )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_check = loop.time() + self._options.check_seconds
        try:
            while self._streams:
                asked = dict(self._streams)
                for key, rows in await self._read(asked):
                    if key == self._wake_key:
                        self._woken_at = rows[-1][0]
                    elif key in asked and self._streams.get(key) is asked[key]:
                        self._deliver(key, asked[key], rows)
                    # Otherwise its followers have left, and who came since is elsewhere in
                    # the stream: the next answer begins where it needs it.
                if loop.time() >= next_check:
                    await self._check()
                    next_check = loop.time() + self._options.check_seconds
        except LogUnavailable as error:
            self._fail_all(error)
        finally:
            self._task = None
            self._fail_all(LogUnavailable("the log's reader has stopped"))

    async def _read(self, streams: Mapping[bytes, _Watched]) -> list[Any]:
        block = round(self._options.check_seconds * 1000)
        # Its type is that of a key and a position in the client's words.
        positions: dict[Any, Any] = {self._wake_key: self._woken_at}
        for key, watched in streams.items():
            positions[key] = format_id(watched.position)
        self._blocked = True
        try:
            async with bounded(self._options.check_seconds + self._options.command_seconds):
                answer: Any = await self._client.xread(positions, count=_COUNT, block=block)
        finally:
            self._blocked = False
        return list(answer)

    def _deliver(self, key: bytes, watched: _Watched, rows: Rows) -> None:
        try:
            page = decode_rows(rows)
        except LogUnavailable as error:
            self._fail(key, error)
            return
        watched.position = page[-1][0]
        watched.moved = True
        for subscription in watched.subscriptions:
            subscription.push(page)

    async def _check(self) -> None:
        silent = [key for key, watched in self._streams.items() if not watched.moved]
        for watched in self._streams.values():
            watched.moved = False
        if not silent:
            return
        pipeline = self._client.pipeline(transaction=False)
        for key in silent:
            pipeline.exists(key)
        async with bounded(self._options.command_seconds):
            there = await pipeline.execute()
        for key, exists in zip(silent, there, strict=True):
            if not exists:
                self._fail(key, LogMissing("the stream has gone away"))

    def _fail(self, key: bytes, error: Exception) -> None:
        watched = self._streams.pop(key, None)
        if watched is not None:
            for subscription in watched.subscriptions:
                subscription.fail(error)

    def _fail_all(self, error: Exception) -> None:
        for key in list(self._streams):
            self._fail(key, error)


def decode_rows(rows: Rows) -> Page:
    """Entries with their ids from what the server answered."""
    page: Page = []
    for raw, fields in rows:
        entry_id = parse_id(raw)
        page.append((entry_id, decode(entry_id, fields)))
    return page
