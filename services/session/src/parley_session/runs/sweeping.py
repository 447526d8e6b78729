"""Putting right what others have left unfinished.

A pass looks for candidates by time, confirms each by the rules of the run protocol
and does the rest; every step is repeatable, so replicas may sweep at once. A run is
taken over when this replica's own successful reads, timed by its own monotonic clock,
show its beat unmoved for the lease time.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from parley_session import metrics
from parley_session.answers.base import AnswerCache
from parley_session.clock import Clock
from parley_session.domain.model import Chat, Principal, Run
from parley_session.queue.gate import Gate
from parley_session.runs.deleting import Deleter
from parley_session.runs.finishing import Finisher
from parley_session.runs.keys import reap_idempotency
from parley_session.runs.registry import LiveRuns
from parley_session.runs.taking import Sightings, Taker, is_handed_over
from parley_session.runs.turns import store_turn
from parley_session.store.base import Store, StoreUnavailable

_log = logging.getLogger(__name__)

# Candidates of one kind that a pass looks at.
MAX_CANDIDATES = 200
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
# Ages, in seconds, at which a tombstone is cleaned again.
CLEANED_AT_AGES = (60.0, 600.0, 3600.0, 6 * 3600.0)


@dataclass(frozen=True, slots=True)
class SweepTimes:
    """Seconds. `tombstone` exceeds a key's life and the longest deadline."""

    lease: float
    period: float
    tombstone: float


class Sweeper:
    """Sweeps."""

    def __init__(
        self,
        *,
        store: Store,
        cache: AnswerCache,
        live_runs: LiveRuns,
        finisher: Finisher,
        deleter: Deleter,
        taker: Taker,
        gate: Gate,
        clock: Clock,
        times: SweepTimes,
    ) -> None:
        self._store = store
        self._cache = cache
        self._live_runs = live_runs
        self._finisher = finisher
        self._deleter = deleter
        self._clock = clock
        self._times = times
        self._taker = taker
        self._gate = gate
        self._sightings = Sightings(clock)

    async def run(self, pause: Callable[[float], Awaitable[None]]) -> None:
        """Sweep again and again; `pause(seconds)` waits between two passes."""
        while True:
            # Jittered, so that replicas do not sweep in step.
            await pause(self._times.period * random.uniform(0.5, 1.5))  # noqa: S311
            try:
                await self.sweep()
            except StoreUnavailable:
                metrics.SWEEPS.labels("store_unavailable").inc()
            except Exception:  # noqa: BLE001 - the sweeper outlives its defects
                metrics.SWEEPS.labels("error").inc()
                _log.exception("a pass of the sweeper failed unexpectedly")
            else:
                metrics.SWEEPS.labels("ok").inc()

    async def sweep(self) -> None:
        """Do one pass. Raises StoreUnavailable."""
        try:
            await self._sweep_busy_chats()
        except StoreUnavailable:
            # Or every run that lived through it would be taken from its holder.
            self._sightings.forget()
            raise
        await self._sweep_expired_chats()
        await self._sweep_tombstones()
        await self._send_invalidations()
        reaped = await reap_idempotency(self._store, self._clock, MAX_CANDIDATES)
        metrics.SWEPT.labels("idempotency_key").inc(reaped)

    # busy chats ---------------------------------------------------------------

    async def _sweep_busy_chats(self) -> None:
        before = self._clock.now() - timedelta(seconds=self._times.lease / 2)
        chats = list(await self._store.list_busy_chats(before, MAX_CANDIDATES))
        # Others sweep too: in another order, they meet less of what we do.
        random.shuffle(chats)
        for chat in chats:
            run_id = chat.pending[0].run
            if self._live_runs.find(run_id) is None:
                await self._sweep_turn(chat)
        self._sightings.end_pass()

    async def _sweep_turn(self, chat: Chat) -> None:
        turn = chat.pending[0]
        asked_at = self._clock.monotonic()
        run = await self._store.get_run(Principal(chat.tenant, chat.user), turn.run)
        if run is None:
            await store_turn(self._store, chat, turn)
            metrics.SWEPT.labels("turn").inc()
        elif run.state.final:
            await self._finisher.finish(run)
            metrics.SWEPT.labels("committed_run").inc()
        elif is_handed_over(run):
            self._taker.take(run, "handover")
        elif run.attempt == 0:
            await self._sweep_waiting(run, asked_at)
        elif self._sightings.silent_for(run, asked_at) >= self._times.lease:
            self._taker.take(run, "lease")

    async def _sweep_waiting(self, run: Run, asked_at: float) -> None:
        """See that a run which nobody holds waits in the queue, and ends at its deadline."""
        if run.deadline <= self._clock.now():
            self._taker.take(run, "deadline")
            return
        put = await self._gate.put(run)
        if put:
            metrics.SWEPT.labels("queue_entry").inc()
        if put is None and self._sightings.silent_for(run, asked_at) >= self._times.lease:
            self._taker.take(run, "lease")

    # deleted chats ------------------------------------------------------------

    async def _sweep_expired_chats(self) -> None:
        now = self._clock.now()
        for chat in await self._store.list_expired_chats(now, MAX_CANDIDATES):
            await self._deleter.delete(Principal(chat.tenant, chat.user), chat.id)
            metrics.SWEPT.labels("expired_chat").inc()

    async def _sweep_tombstones(self) -> None:
        """Clean tombstones at certain ages, and at the end of their time remove them."""
        now = self._clock.now()
        window = timedelta(seconds=2 * self._times.period)
        for age in CLEANED_AT_AGES:
            before = now - timedelta(seconds=age)
            for chat in await self._store.list_tombstones(before - window, before, MAX_CANDIDATES):
                await self._deleter.clean(chat)
                metrics.SWEPT.labels("tombstone").inc()
        end = now - timedelta(seconds=self._times.tombstone)
        for chat in await self._store.list_tombstones(LONG_AGO, end, MAX_CANDIDATES):
            await self._deleter.clean(chat)
            await self._store.remove_tombstone(chat.id)
            metrics.SWEPT.labels("tombstone_end").inc()

    # the cache ----------------------------------------------------------------

    async def _send_invalidations(self) -> None:
        """Repeat invalidations until the cache has confirmed them."""
        for invalidation in await self._store.list_invalidations(MAX_CANDIDATES):
            if not await self._cache.invalidate(invalidation):
                return
            await self._store.confirm_invalidation(invalidation.id)
            metrics.SWEPT.labels("invalidation").inc()
