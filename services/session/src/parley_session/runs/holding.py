"""Holding a run: the attempt that names every write, and the beat that keeps it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from parley_session.domain.model import Principal, Run, RunState
from parley_session.runs.errors import Fenced
from parley_session.runs.log import LogFenced, LogMissing, LogUnavailable, RunLog
from parley_session.runs.signal import Stop, StopSignal
from parley_session.store.base import Store, StoreUnavailable
from parley_session.store.patience import persistently

_log = logging.getLogger(__name__)


def held_from_the_start(run: Run, holder: str) -> Run:
    """Return a run as it is inserted by one who makes it at once.

    One write instead of two, and nobody in between: inserted unheld, then held.
    """
    return replace(run, attempt=1, holder=holder, state=RunState.RUNNING)


class Hold:
    """A run held by this replica under `attempt`.

    `holder` names the process, and no other one ever; `lease` in seconds.
    """

    def __init__(self, store: Store, log: RunLog, run: Run, holder: str, lease: float) -> None:
        self.run = run
        # The stream whose expiry is put off; the writer keeps it up to date.
        self.stream: str | None = None
        self._store = store
        self._log = log
        self._holder = holder
        self._lease = lease

    @property
    def attempt(self) -> int:
        """The attempt that every write names."""
        return self.run.attempt

    async def take(self) -> None:
        """Raise the attempt by compare-and-set. Raises Fenced if somebody else did."""
        expected, faults = self.run.attempt, self.run.faults
        failed = False

        async def hold() -> Run | None:
            nonlocal failed
            try:
                held = await self._store.hold_run(self.run.id, expected, self._holder, faults)
                # A try that failed may have been applied: know one's own work.
                return await self._own_attempt(expected + 1) if held is None and failed else held
            except StoreUnavailable:
                failed = True
                raise

        held = await persistently(hold)
        if held is None:
            raise Fenced
        self.run = held

    async def _own_attempt(self, attempt: int) -> Run | None:
        run = await self._store.get_run(Principal(self.run.tenant, self.run.user), self.run.id)
        own = run is not None and run.attempt == attempt and run.holder == self._holder
        return run if own and run is not None and not run.state.final else None

    @asynccontextmanager
    async def beating(self, signal: StopSignal) -> AsyncIterator[None]:
        """Move the beat while the body runs; tell `signal` of a cancel flag or a fence."""
        # Apart from each other: a log that is slow to answer must not hold up the beat, or
        # others would take the run over from a holder that is well.
        tasks = {
            asyncio.create_task(self._beat(signal), name=f"beat {self.run.id}"),
            asyncio.create_task(self._renew(), name=f"log of {self.run.id}"),
        }
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _beat(self, signal: StopSignal) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            attempt = self.attempt
            try:
                beat = await self._store.move_beat(self.run.id, attempt)
            except StoreUnavailable:
                # Others cannot see the beat stand still either: their reads fail too.
                continue
            if beat is None:
                # Unless the attempt was raised meanwhile, by ourselves.
                if attempt == self.attempt:
                    signal.stop(Stop.FENCED)
                continue
            if beat.cancel_requested:
                signal.stop(Stop.CANCELLED)

    async def _renew(self) -> None:
        """Put the log's expiry off while the body runs."""
        while True:
            await asyncio.sleep(self._lease / 3)
            if self.stream is None:
                continue
            try:
                await self._log.renew(self.stream)
            except (LogUnavailable, LogMissing, LogFenced):
                # The writer meets the same at its next entry, and knows what to do.
                _log.debug("the log's expiry could not be put off", extra={"run": self.run.id})
