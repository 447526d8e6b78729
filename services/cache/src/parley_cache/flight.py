"""Single flight: of many who ask the same at once, one makes the answer.

Whoever misses may take a short lease of the question's key; others who miss wait for
the answer, a bounded time. The lease ends with the Store, with its release, or by
itself. One that ends without an answer leaves the key open for a moment: those who
wait go on at once, and nobody queues behind answers that are not kept. The key holds
the whole partition, so nobody waits for what they could not be given. Everything that
fails lets the asker go on.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from dataclasses import dataclass

from parley_cache import metrics
from parley_cache.guard import StoreGuard
from parley_cache.keys import EntryKey
from parley_cache.store.base import CacheStore, Found, Lease, StoreError

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class FlightRules:
    """How long and how many.

    Args:
        lease_seconds: how long a lease stands; above the time of most answers.
        max_wait_seconds: longest wait for one.
        max_waiting: askers that wait at a time, on this replica; more go on.
        open_seconds: how long nobody waits after an answer that was not kept.
        call_seconds: longest call of the store.
    """

    lease_seconds: float = 30.0
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


class SingleFlight:
    """Takes, awaits and ends leases.

    Args:
        store: where they are.
        guard: bounds each call.
        rules: bounds.
    """

    def __init__(self, store: CacheStore, guard: StoreGuard, rules: FlightRules) -> None:
        self._store = store
        self._guard = guard
        self._rules = rules
        self._waiting = 0

    async def board(self, key: EntryKey, *, max_wait: float) -> Flight:
        """Take the lease, or wait at most so many seconds for another's answer."""
        token = secrets.token_hex(16)
        try:
            lease = await self._take(key, token)
            if lease is Lease.TAKEN:
                return await self._check_again(key, token)
            wait = min(max_wait, self._rules.max_wait_seconds)
            if lease is Lease.OPEN or wait <= 0:
                metrics.LEASES.labels(lease.value).inc()
                return Flight(None, in_flight=lease is Lease.HELD)
            if self._waiting >= self._rules.max_waiting:
                metrics.LEASES.labels("crowded").inc()
                return Flight(None)
            self._waiting += 1
            try:
                return await self._wait(key, token, wait)
            finally:
                self._waiting -= 1
        except StoreError:
            metrics.LEASES.labels("unavailable").inc()
            return Flight(None)

    async def end(self, key: EntryKey, token: str, *, answered: bool) -> None:
        """End a lease; a store that is away ends it by time."""
        outcome = "answered" if answered else "released"
        try:
            async with self._guard.operation("lease", self._rules.call_seconds):
                seconds = 0.0 if answered else self._rules.open_seconds
                await self._store.end_lease(key, token, open_seconds=seconds)
        except StoreError:
            outcome = "unavailable"
        metrics.LEASES.labels(outcome).inc()

    async def _take(self, key: EntryKey, token: str) -> Lease:
        async with self._guard.operation("lease", self._rules.call_seconds):
            return await self._store.take_lease(key, token, self._rules.lease_seconds)

    async def _check_again(self, key: EntryKey, token: str) -> Flight:
        """Look once more: the one before may have stored its answer since the miss."""
        async with self._guard.operation("get", self._rules.call_seconds):
            found = await self._store.get(key)
        if found.entry is None:
            metrics.LEASES.labels("taken").inc()
            return Flight(found, token)
        await self.end(key, token, answered=True)
        return Flight(found)

    async def _wait(self, key: EntryKey, token: str, wait: float) -> Flight:
        deadline = time.monotonic() + wait
        pause = _FIRST_PAUSE
        while time.monotonic() < deadline:
            # Spread, so that those who began together do not ask together.
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - not a secret
            pause = min(1.5 * pause, _LONGEST_PAUSE)
            async with self._guard.operation("get", self._rules.call_seconds):
                found = await self._store.get(key)
            if found.entry is not None:
                metrics.LEASES.labels("waited").inc()
                return Flight(found)
            lease = await self._take(key, token)
            if lease is Lease.TAKEN:
                return await self._check_again(key, token)
            if lease is Lease.OPEN:
                metrics.LEASES.labels("open").inc()
                return Flight(found)
        metrics.LEASES.labels("waited_in_vain").inc()
        return Flight(None)
