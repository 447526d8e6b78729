"""Putting right what others have left unfinished of runs.

A pass looks for candidates by time, confirms each by the rules of the run protocol
and does the rest; every step is repeatable, so replicas may sweep at once. A run is
taken over when this replica's own successful reads, timed by its own monotonic clock,
show its beat unmoved for the lease time. So every replica sweeps for itself, whatever
others do, and needs the store for it and nothing else.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from parley_session import metrics
from parley_session.clock import Clock
from parley_session.domain.model import Chat, Principal, Run
from parley_session.jobs.base import Job
from parley_session.queue.gate import Gate
from parley_session.runs.finishing import Finisher
from parley_session.runs.registry import LiveRuns
from parley_session.runs.taking import Sightings, Taker, is_handed_over
from parley_session.runs.turns import store_turn
from parley_session.store.base import Store, StoreUnavailable

# Candidates that a pass looks at.
MAX_CANDIDATES = 200
SWEEP_RUNS = "sweep_runs"


class Sweeper:
    """Sweeps. `lease`: in seconds."""

    def __init__(
        self,
        *,
        store: Store,
        live_runs: LiveRuns,
        finisher: Finisher,
        taker: Taker,
        gate: Gate,
        clock: Clock,
        lease: float,
    ) -> None:
        self._store = store
        self._live_runs = live_runs
        self._finisher = finisher
        self._clock = clock
        self._lease = lease
        self._taker = taker
        self._gate = gate
        self._sightings = Sightings(clock)

    def job(self, period: float, deadline: float) -> Job:
        """The job of sweeping: each replica's own, because what counts is what it has seen."""
        return Job(SWEEP_RUNS, period, deadline, self.sweep, shared=False)

    async def sweep(self, _: datetime | None = None) -> None:
        """Do one pass. Raises StoreUnavailable."""
        try:
            await self._sweep_busy_chats()
        except StoreUnavailable:
            # Or every run that lived through it would be taken from its holder.
            self._sightings.forget()
            raise

    async def _sweep_busy_chats(self) -> None:
        # The wall clock only spares looking at what has just begun: what counts is confirmed
        # by the monotonic one.
        now = self._clock.now()
        before = now - timedelta(seconds=self._lease / 2)
        chats = list(await self._store.list_busy_chats(before, MAX_CANDIDATES, now))
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
            metrics.JOB_ITEMS.labels(SWEEP_RUNS, "turn").inc()
        elif run.state.final:
            await self._finisher.finish(run)
            metrics.JOB_ITEMS.labels(SWEEP_RUNS, "committed_run").inc()
        elif is_handed_over(run):
            self._taker.take(run, "handover")
        elif run.attempt == 0:
            await self._sweep_waiting(run, asked_at)
        elif self._sightings.silent_for(run, asked_at) >= self._lease:
            self._taker.take(run, "lease")

    async def _sweep_waiting(self, run: Run, asked_at: float) -> None:
        """See that a run which nobody holds waits in the queue, and ends at its deadline."""
        if run.deadline <= self._clock.now():
            self._taker.take(run, "deadline")
            return
        put = await self._gate.put(run)
        if put:
            metrics.JOB_ITEMS.labels(SWEEP_RUNS, "queue_entry").inc()
        if put is None and self._sightings.silent_for(run, asked_at) >= self._lease:
            self._taker.take(run, "lease")
