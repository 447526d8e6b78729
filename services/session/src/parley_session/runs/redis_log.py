"""The `RunLog` on Redis Streams.

A stream's name is `{run}:{attempt}`; its key carries the run in a hash tag, so that
all streams of a run share a slot. Entries have explicit ids, which Redis only lets
grow: that is the fence. Only `create` makes a stream, in one transaction with its
expiry; everything else says NOMKSTREAM. Nothing is ever trimmed, and nothing is sent
twice by itself: whoever is told LogUnavailable knows that it may have happened.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from redis import exceptions

from parley_kit import semconv
from parley_session.runs.log import BEGINNING, LogEntry, LogMissing, LogUnavailable, Place
from parley_session.runs.log_codec import FIELD, EntryID, encode, format_id
from parley_session.runs.log_metrics import observe
from parley_session.runs.redis_client import RedisLogOptions, bounded, open_client
from parley_session.runs.redis_followers import Followers, Page, Subscription, decode_rows
from parley_session.runs.redis_writer import PipelineWriter

# Entries of one XRANGE.
_PAGE = 512
_POLICY = "noeviction"

_tracer = trace.get_tracer(__name__)


class RedisRunLog:
    """Streams in a Redis (or Valkey) whose policy is `noeviction`."""

    def __init__(self, options: RedisLogOptions) -> None:
        self._options = options
        self._limits = options.limits
        self._ttl = round(options.limits.ttl_seconds * 1000)
        self._client = open_client(options, connections=options.max_connections)
        self._writer = PipelineWriter(
            self._client,
            seconds=options.command_seconds,
            max_waiting=options.max_waiting_writes,
        )
        self._followers = Followers(options, self._writer)

    async def ping(self) -> None:
        """See `RunLog.ping`."""
        async with self._operation("ping"):
            try:
                policy = (await self._client.info("memory")).get("maxmemory_policy")
                if policy is None:
                    policy = (await self._client.config_get("maxmemory-policy")).get(
                        "maxmemory-policy"
                    )
            except exceptions.ResponseError:
                policy = None
                await self._client.ping()
        if policy is None and not self._options.trust_policy:
            raise LogUnavailable(
                "the log's Redis does not say its maxmemory-policy; it must be noeviction"
                " (if it is, say so by the setting that trusts it)"
            )
        if policy is not None and policy != _POLICY:
            raise LogUnavailable(
                f"the log's Redis may evict logs: maxmemory-policy is {policy},"
                f" it must be {_POLICY}"
            )

    async def close(self) -> None:
        """See `RunLog.close`."""
        await self._followers.close()
        await self._writer.close()
        await self._client.aclose()

    async def create(self, run_id: str, attempt: int) -> str:
        """See `RunLog.create`."""
        name = f"{run_id}:{attempt}"
        key = self._key(name)
        async with self._operation("create"):
            pipeline = self._client.pipeline(transaction=True)
            opening = LogEntry(attempt, 0, 0)
            pipeline.execute_command("XADD", key, format_id((attempt, 0)), FIELD, encode(opening))
            pipeline.pexpire(key, self._ttl)
            await pipeline.execute()
        return name

    async def append(self, stream: str, entry: LogEntry) -> None:
        """See `RunLog.append`."""
        self._limits.check(entry)
        await self._append(stream, entry)

    async def fence(self, stream: str, attempt: int) -> None:
        """See `RunLog.fence`."""
        async with self._operation("fence"):
            await self._append(stream, LogEntry(attempt, 0, 0))

    async def read(self, stream: str) -> Sequence[LogEntry]:
        """See `RunLog.read`."""
        entries: list[LogEntry] = []
        async with self._operation("read"):
            key = self._key(stream)
            page = await self._page(key, (0, 0))
            if not page:
                raise LogMissing(stream)
            while page:
                entries += [entry for _, entry in page]
                page = await self._page(key, page[-1][0]) if len(page) == _PAGE else []
        return entries

    async def follow(self, stream: str, after: Place = BEGINNING) -> AsyncGenerator[LogEntry, None]:
        """See `RunLog.follow`."""
        key = self._key(stream)
        position = after
        page = await self._page(key, position)
        if not page and not await self._exists(key):
            raise LogMissing(stream)
        subscription: Subscription | None = None
        try:
            while True:
                while page:
                    more = len(page) >= _PAGE
                    for entry_id, entry in page:
                        # What the lane hands over may have been read from the log already.
                        if entry_id > position:
                            position = entry_id
                            yield entry
                            if entry.last:
                                return
                    page = await self._page(key, position) if more else []
                if subscription is None:
                    subscription = self._followers.subscribe(key, position)
                page = await subscription.next() or await self._page(key, position)
        finally:
            if subscription is not None:
                self._followers.unsubscribe(subscription)

    async def renew(self, stream: str) -> None:
        """See `RunLog.renew`."""
        if not await self._writer.write((b"PEXPIRE", self._key(stream), self._ttl)):
            raise LogMissing(stream)

    async def delete(self, stream: str) -> None:
        """See `RunLog.delete`."""
        async with self._operation("delete"):
            await self._client.unlink(self._key(stream))

    async def _append(self, stream: str, entry: LogEntry) -> None:
        entry_id = format_id((entry.attempt, entry.number))
        added = await self._writer.write(
            (b"XADD", self._key(stream), b"NOMKSTREAM", entry_id, FIELD, encode(entry))
        )
        if added is None:
            raise LogMissing(stream)

    async def _page(self, key: bytes, after: EntryID) -> Page:
        first = b"(" + format_id(after)
        async with bounded(self._options.command_seconds):
            rows: Any = await self._client.xrange(key, min=first, count=_PAGE)
        return decode_rows(rows)

    async def _exists(self, key: bytes) -> bool:
        async with bounded(self._options.command_seconds):
            return bool(await self._client.exists(key))

    def _key(self, stream: str) -> bytes:
        run, _, attempt = stream.rpartition(":")
        return f"{self._options.key_prefix}{{{run}}}:{attempt}".encode()

    @asynccontextmanager
    async def _operation(self, name: str) -> AsyncIterator[None]:
        """Bound one operation in time, with a span and a metric. Appends have neither span."""
        began = perf_counter()
        outcome = "error"
        with _tracer.start_as_current_span(
            f"log {name}",
            kind=SpanKind.CLIENT,
            attributes={semconv.DB_SYSTEM_NAME: "redis", semconv.DB_OPERATION_NAME: name},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                async with bounded(self._options.command_seconds):
                    yield
                outcome = "ok"
            except LogUnavailable:
                outcome = "unavailable"
                span.set_status(Status(StatusCode.ERROR))
                raise
            except Exception:
                # Fenced or missing: an answer, not a failure of the server.
                outcome = "refused"
                raise
            finally:
                observe(name, outcome, began)
