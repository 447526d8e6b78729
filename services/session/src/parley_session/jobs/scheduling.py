"""When jobs are done: APScheduler's timers, on this replica's event loop.

The library says when, in this process and nothing else; whether a shared job is this
replica's to do is asked each time (`jobs.claims`), so its timer fires more often than
the job is due. A run that is late is made once, not once for every time that was missed;
a run that has not ended when the next one is due lets that one pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from parley_session import metrics
from parley_session.clock import Clock
from parley_session.jobs.base import Job

# Looks for a shared job in one of its periods.
LOOKS = 4
# Seconds between two comparisons of the clocks, and the step of the wall clock that counts.
CLOCK_SECONDS = 1.0
STEP_SECONDS = 1.0


class Scheduler:
    """Has `perform` called with each job from time to time, until cancelled."""

    def __init__(
        self, jobs: Sequence[Job], perform: Callable[[Job], Awaitable[None]], clock: Clock
    ) -> None:
        self._jobs = jobs
        self._perform = perform
        self._clock = clock
        self._performing: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def run(self) -> None:
        """Schedule until cancelled; then end what is being done."""
        # Its own words, a line or two for every run, are said by the metrics.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        scheduler = AsyncIOScheduler(timezone=UTC)
        scheduler.add_listener(self._count_skipped, EVENT_JOB_MAX_INSTANCES)
        for job in self._jobs:
            scheduler.add_job(
                self._fire,
                _trigger(job),
                args=[job],
                id=job.name,
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,
            )
        scheduler.start()
        try:
            await self._watch_clock(scheduler)
        finally:
            await self._stop(scheduler)

    async def _fire(self, job: Job) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._performing.add(task)
        try:
            await self._perform(job)
        except asyncio.CancelledError:
            # The library would report what is only the end of this replica.
            if not self._stopping:
                raise
        finally:
            self._performing.discard(task)

    async def _watch_clock(self, scheduler: AsyncIOScheduler) -> None:
        """See that no job waits for the wall clock, which the library goes by, to come back."""
        drift = self._drift()
        while True:
            await asyncio.sleep(CLOCK_SECONDS)
            before, drift = drift, self._drift()
            if abs(drift - before) > STEP_SECONDS:
                for job in scheduler.get_jobs():
                    job.modify(next_run_time=datetime.now(UTC))

    def _drift(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _count_skipped(self, event: JobSubmissionEvent) -> None:
        # That of a shared job is a look that was not needed.
        if any(job.name == event.job_id and not job.shared for job in self._jobs):
            metrics.JOB_RUNS.labels(event.job_id, "skipped").inc()

    async def _stop(self, scheduler: AsyncIOScheduler) -> None:
        self._stopping = True
        scheduler.remove_all_jobs()
        if performing := set(self._performing):
            for task in performing:
                task.cancel()
            await asyncio.wait(performing)
        scheduler.shutdown(wait=False)


def _trigger(job: Job) -> IntervalTrigger:
    """Fire about once a period, a shared job's more often; jittered, so that replicas differ."""
    seconds = job.period / LOOKS if job.shared else job.period
    # The library adds the jitter, from nothing to all of it.
    return IntervalTrigger(seconds=seconds / 2, jitter=seconds, timezone=UTC)
