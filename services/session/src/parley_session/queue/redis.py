"""The `RunQueue` on Redis Streams: one stream a tenant, one consumer group, served in turn.

It lives beside the run log, on a server whose policy is `noeviction`. Every step is one
script (`queue.scripts`), so that stream, places and counts never disagree.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from redis.asyncio import Redis

from parley_session.queue import scripts
from parley_session.queue.base import Delivery, QueueFull, QueueLimits, QueueUnavailable, Ticket
from parley_session.runs.log import LogFenced, LogUnavailable
from parley_session.runs.log_metrics import observe
from parley_session.runs.redis_client import RedisLogOptions, bounded, open_client

_CONNECTIONS = 4
# The longest blocking read; a wait for longer is several.
_BLOCK_SECONDS = 2.0


class RedisRunQueue:
    """Runs that wait, shared by all replicas. `consumer` names this process."""

    def __init__(
        self,
        options: RedisLogOptions,
        consumer: str,
        limits: QueueLimits | None = None,
        *,
        prefix: str = "parley:{queue}",
    ) -> None:
        self._limits = limits or QueueLimits()
        self._consumer = consumer
        self._prefix = prefix
        self._seconds = options.command_seconds
        self._redelivery = round(self._limits.redeliver_seconds * 1000)
        self._client: Redis = open_client(options, connections=_CONNECTIONS)
        self._blocking: Redis = open_client(options, connections=1)
        self._reserve = self._client.register_script(scripts.RESERVE)
        self._release = self._client.register_script(scripts.RELEASE)
        self._put = self._client.register_script(scripts.PUT)
        self._take = self._client.register_script(scripts.TAKE)
        self._done = self._client.register_script(scripts.DONE)
        self._put_back = self._client.register_script(scripts.PUT_BACK)
        self._position = self._client.register_script(scripts.POSITION)
        # The last ring of the bell that was heard.
        self._heard: bytes | str = "$"

    async def reserve(self, ticket: Ticket) -> None:
        """See `RunQueue.reserve`."""
        limits = self._limits
        kept_ms = round(limits.reserve_seconds * 1000)
        bounds = (limits.total, limits.user, kept_ms)
        answer = await self._of_ticket("reserve", self._reserve, ticket, *bounds)
        if answer != scripts.RESERVED:
            raise QueueFull(share=answer == scripts.SHARE_FULL)

    async def release(self, ticket: Ticket) -> None:
        """See `RunQueue.release`."""
        await self._of_ticket("release", self._release, ticket)

    async def put(self, ticket: Ticket) -> bool:
        """See `RunQueue.put`."""
        return bool(await self._of_ticket("put", self._put, ticket))

    async def size(self) -> int:
        """See `RunQueue.size`."""
        async with self._operation("size"):
            return int(await self._client.get(f"{self._prefix}:total") or 0)

    async def position(self, ticket: Ticket) -> int | None:
        """See `RunQueue.position`."""
        place = await self._run("position", self._position, ticket.tenant, ticket.run_id)
        return None if place is None else int(place)

    async def take(self) -> Delivery | None:
        """See `RunQueue.take`."""
        taken = await self._run("take", self._take, self._consumer, self._redelivery)
        if taken is None:
            return None
        tenant, entry, fields = taken
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        ticket = Ticket(values[b"run"].decode(), tenant.decode(), values[b"user"].decode())
        return Delivery(ticket, entry.decode())

    async def put_back(self, delivery: Delivery) -> None:
        """See `RunQueue.put_back`."""
        await self._of_delivery("put_back", self._put_back, delivery)

    async def done(self, delivery: Delivery) -> None:
        """See `RunQueue.done`."""
        await self._of_delivery("done", self._done, delivery)

    async def wait(self, seconds: float) -> None:
        """See `RunQueue.wait`."""
        block = min(seconds, _BLOCK_SECONDS)
        try:
            async with bounded(block + self._seconds):
                found: Any = await self._blocking.xread(
                    {f"{self._prefix}:bell": self._heard},
                    count=1,
                    block=max(1, round(block * 1000)),
                )
        except (LogUnavailable, LogFenced) as error:
            raise QueueUnavailable(str(error)) from error
        if found:
            self._heard = found[0][1][-1][0]

    async def close(self) -> None:
        """See `RunQueue.close`."""
        await self._client.aclose()
        await self._blocking.aclose()

    async def _of_ticket(self, name: str, script: Any, ticket: Ticket, *more: int) -> Any:
        return await self._run(name, script, ticket.tenant, ticket.run_id, ticket.user, *more)

    async def _of_delivery(self, name: str, script: Any, delivery: Delivery) -> None:
        ticket = delivery.ticket
        await self._run(name, script, ticket.tenant, delivery.entry, ticket.run_id, ticket.user)

    async def _run(self, name: str, script: Any, *arguments: str | int) -> Any:
        async with self._operation(name):
            return await script(keys=[self._prefix], args=arguments)

    @asynccontextmanager
    async def _operation(self, name: str) -> AsyncIterator[None]:
        """Bound one operation in time, turn the client's errors into the queue's, count it."""
        began = perf_counter()
        outcome = "error"
        try:
            async with bounded(self._seconds):
                yield
            outcome = "ok"
        except (LogUnavailable, LogFenced) as error:
            outcome = "unavailable"
            raise QueueUnavailable(str(error)) from error
        finally:
            observe(f"queue_{name}", outcome, began)
