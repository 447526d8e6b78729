"""Single flight: of many who ask the same at once, one makes the answer.

Whoever misses may take a short lease of the question's key; others who miss wait for
the answer, a bounded time. The lease ends with the Store, with its release, or by
itself, unless it is renewed. One that ends without an answer leaves the key open for a
moment: those who wait go on at once, and nobody queues behind answers that are not kept.
The key holds the whole partition, so nobody waits for what they could not be given. With
the semantic tier, who asks what means the same waits as well (`crowd`). Everything that
fails lets the asker go on.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from dataclasses import dataclass

from parley_cache import metrics
from parley_cache.crowd import Crowd, Leader
from parley_cache.guard import StoreGuard
from parley_cache.keys import EntryKey, entry_key
from parley_cache.model import Query
from parley_cache.store.base import CacheStore, Found, Lease, StoreError

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.2
_MOST_LEADERS = 3
"""That one asker follows, each after the one before has ended without an answer."""


@dataclass(frozen=True, slots=True)
class FlightRules:
    """How long and how many.

    Args:
        lease_seconds: how long a lease stands; its holder renews it in time.
        max_wait_seconds: longest wait for one.
        max_waiting: askers that wait at a time, on this replica; more go on.
        open_seconds: how long nobody waits after an answer that was not kept.
        call_seconds: longest call of the store.
    """

    lease_seconds: float = 15.0
    max_wait_seconds: float = 30.0
    max_waiting: int = 1_024
    open_seconds: float = 2.0
    call_seconds: float = 0.25


@dataclass(frozen=True, slots=True)
class Flight:
    """What a miss came to: a lease, an answer that another made, or neither."""

    found: Found | None
    lease: str = ""
    in_flight: bool = False
    """Another makes the answer, and there is no time to wait for it."""
    leader: Leader | None = None
    """Whose answer it is, where the question was another one that means the same."""


class SingleFlight:
    """Takes, awaits, renews and ends leases.

    Args:
        store: where they are.
        guard: bounds each call.
        rules: bounds.
        crowd: knows who asks what means the same; None: nobody does.
    """

    def __init__(
        self, store: CacheStore, guard: StoreGuard, rules: FlightRules, crowd: Crowd | None = None
    ) -> None:
        self._store = store
        self._guard = guard
        self._rules = rules
        self._crowd = crowd
        self._waiting = 0

    @property
    def lease_seconds(self) -> float:
        """How long a lease stands."""
        return self._rules.lease_seconds

    async def board(self, query: Query, *, max_wait: float, semantic: bool = False) -> Flight:
        """Take the lease, or wait at most so many seconds for another's answer.

        Args:
            query: what was missed.
            max_wait: 0: do not wait.
            semantic: whether the answer to a question that means the same will do.
        """
        wait = min(max_wait, self._rules.max_wait_seconds)
        asker = _Asker(query, entry_key(query), time.monotonic() + wait, wait > 0, semantic)
        try:
            for _ in range(_MOST_LEADERS):
                flight = await self._board(asker)
                if flight is not None:
                    return flight
        except StoreError:
            metrics.LEASES.labels("unavailable").inc()
        finally:
            self._waiting -= asker.counted
        return Flight(None)

    async def _board(self, asker: _Asker) -> Flight | None:
        """Lead or wait; None: whom the asker followed has vanished."""
        lease, found = await self._take(asker)
        if found.entry is not None:
            metrics.LEASES.labels("answered").inc()
            return Flight(found)
        if lease is Lease.TAKEN:
            return await self._lead(asker, found)
        if lease is Lease.OPEN or not asker.waits:
            metrics.LEASES.labels(lease.value).inc()
            return Flight(None, in_flight=lease is Lease.HELD)
        return await self._wait(asker, None)

    async def _lead(self, asker: _Asker, found: Found) -> Flight | None:
        """Use a lease that was taken, unless an equivalent answer is being made already."""
        metrics.LEASES.labels("taken").inc()
        flight = Flight(found, asker.token)
        if self._crowd is None or not asker.semantic:
            return flight
        try:
            leader = await self._crowd.join(asker.query, asker.token, self._rules.lease_seconds)
        except StoreError:
            # The lease is there; only who asks otherwise does not know of it.
            return flight
        if leader is None:
            return flight
        await self._crowd.leave(asker.query, asker.token)
        await self._end(asker.key, asker.token, open_seconds=0.0)
        if not asker.waits:
            metrics.LEASES.labels("held").inc()
            return Flight(None, in_flight=True)
        return await self._wait(asker, leader)

    async def end(self, query: Query, token: str, *, answered: bool) -> None:
        """End a lease; a store that is away ends it by time."""
        outcome = "answered" if answered else "released"
        if self._crowd is not None:
            await self._crowd.leave(query, token)
        try:
            open_seconds = 0.0 if answered else self._rules.open_seconds
            await self._end(entry_key(query), token, open_seconds=open_seconds)
        except StoreError:
            outcome = "unavailable"
        metrics.LEASES.labels(outcome).inc()

    async def renew(self, query: Query, token: str) -> bool:
        """Let a lease stand for its whole time from now on. False: it has ended.

        A store that is away says neither: what it holds ends by time.
        """
        seconds = self._rules.lease_seconds
        try:
            async with self._guard.operation("lease", self._rules.call_seconds):
                held = await self._store.renew_lease(entry_key(query), token, seconds)
            if held and self._crowd is not None:
                await self._crowd.stay(query, token, seconds)
        except StoreError:
            metrics.LEASES.labels("unavailable").inc()
            return True
        metrics.LEASES.labels("renewed" if held else "lost").inc()
        return held

    async def _take(self, asker: _Asker) -> tuple[Lease, Found]:
        """Try to take the lease, and look once more: it ends at once where the answer is there.

        The one before may have stored it since the miss.
        """
        key, token = asker.key, asker.token
        async with self._guard.operation("lease", self._rules.call_seconds):
            lease, found = await self._store.take_lease(key, token, self._rules.lease_seconds)
        if lease is Lease.TAKEN and found.entry is not None:
            await self._end(key, token, open_seconds=0.0)
        return lease, found

    async def _end(self, key: EntryKey, token: str, *, open_seconds: float) -> None:
        async with self._guard.operation("lease", self._rules.call_seconds):
            await self._store.end_lease(key, token, open_seconds=open_seconds)

    async def _get(self, key: EntryKey) -> Found:
        async with self._guard.operation("get", self._rules.call_seconds):
            return await self._store.get(key)

    async def _wait(self, asker: _Asker, leader: Leader | None) -> Flight | None:
        if not asker.counted:
            if self._waiting >= self._rules.max_waiting:
                metrics.LEASES.labels("crowded").inc()
                return Flight(None)
            # Once, also of who waits, leads, and then waits for an equivalent answer.
            asker.counted = True
            self._waiting += 1
        if leader is None:
            return await self._wait_for_the_same(asker)
        return await self._follow(asker, leader)

    async def _wait_for_the_same(self, asker: _Asker) -> Flight | None:
        pause = _FIRST_PAUSE
        while time.monotonic() < asker.deadline:
            pause = await _rest(pause)
            found = await self._get(asker.key)
            if found.entry is not None:
                metrics.LEASES.labels("waited").inc()
                return Flight(found)
            lease, found = await self._take(asker)
            if found.entry is not None:
                metrics.LEASES.labels("waited").inc()
                return Flight(found)
            if lease is Lease.TAKEN:
                return await self._lead(asker, found)
            if lease is Lease.OPEN:
                metrics.LEASES.labels("open").inc()
                return Flight(found)
        metrics.LEASES.labels("waited_in_vain").inc()
        return Flight(None)

    async def _follow(self, asker: _Asker, leader: Leader) -> Flight | None:
        pause = _FIRST_PAUSE
        while time.monotonic() < asker.deadline:
            pause = await _rest(pause)
            # The lease first: it ends after the answer was stored.
            async with self._guard.operation("lease", self._rules.call_seconds):
                lease = await self._store.peek_lease(leader.key)
            found = await self._get(leader.key)
            if found.entry is not None:
                metrics.LEASES.labels("followed").inc()
                return Flight(found, leader=leader)
            if lease is Lease.OPEN:
                metrics.LEASES.labels("open").inc()
                return Flight(found)
            if lease is None:
                return None
        metrics.LEASES.labels("waited_in_vain").inc()
        return Flight(None)


@dataclass(slots=True)
class _Asker:
    """One who missed, until `deadline` (monotonic seconds)."""

    query: Query
    key: EntryKey
    deadline: float
    waits: bool
    semantic: bool
    counted: bool = False
    """Among those who wait on this replica."""
    token: str = ""

    def __post_init__(self) -> None:
        self.token = secrets.token_hex(16)


async def _rest(pause: float) -> float:
    """Pause, spread so that those who began together do not ask together; give the next."""
    await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - not a secret
    return min(1.5 * pause, _LONGEST_PAUSE)
