"""Which replica does a shared job: a claim in the store, ended when its run has ended.

A claim is a compare-and-set on the job's attempt, so of many replicas that find a job
due one does it. A run that ends says when the job is due again. One that was killed
says nothing: its claim is taken over when this replica's own reads, timed by its own
monotonic clock, have shown it unmoved for longer than any run may take. Being due is a
matter of wall clocks; where they differ, a job is done early or late, which is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from parley_session import metrics
from parley_session.clock import Clock
from parley_session.domain.jobs import JobEnd, JobRecord
from parley_session.jobs.base import Job
from parley_session.store.base import Store

# Deadlines after which a claim that did not move is taken over: whoever meets its deadline
# needs some time to say so.
TAKEN_OVER_AFTER = 1.5


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to do a job once; `since`: when the last run that succeeded began."""

    job: Job
    attempt: int
    began_at: datetime
    since: datetime | None


class Claims:
    """Claims jobs for one replica. Raises StoreUnavailable."""

    def __init__(self, store: Store, clock: Clock, holder: str) -> None:
        self._store = store
        self._clock = clock
        self._holder = holder
        # Job → the attempt that was last read as running, and when it first was (monotonic).
        self._seen: dict[str, tuple[int, float]] = {}

    async def claim(self, job: Job) -> Claim | None:
        """Claim a job. None: it is not due, or somebody else does it."""
        asked_at = self._clock.monotonic()
        record = await self._store.get_job(job.name)
        if record is not None:
            _show(record)
            if not self._is_due(job, record, asked_at):
                return None
        attempt = record.attempt if record is not None else 0
        if not await self._store.claim_job(job.name, attempt, self._holder):
            return None
        since = record.succeeded_at if record is not None else None
        return Claim(job, attempt + 1, self._clock.now(), since)

    async def end(self, claim: Claim, *, succeeded: bool, left: int | None) -> None:
        """Say how a run ended; the job is due again a period after its beginning."""
        end = JobEnd(
            due_at=claim.began_at + timedelta(seconds=claim.job.period),
            succeeded_at=claim.began_at if succeeded else None,
            left=left,
        )
        await self._end(claim, end)

    async def release(self, claim: Claim) -> None:
        """Say that a run was broken off by this replica's end: the job is due at once."""
        await self._end(claim, JobEnd(due_at=claim.began_at))

    async def _end(self, claim: Claim, end: JobEnd) -> None:
        if await self._store.end_job(claim.job.name, claim.attempt, end):
            record = await self._store.get_job(claim.job.name)
            if record is not None:
                _show(record)

    def _is_due(self, job: Job, record: JobRecord, asked_at: float) -> bool:
        if not record.running:
            now = self._clock.now()
            # Due in a time that no run sets: by a clock that was wrong.
            return not now < record.due_at <= now + timedelta(seconds=2 * job.period)
        attempt, since = self._seen.get(job.name, (0, 0.0))
        if attempt != record.attempt:
            since = self._clock.monotonic()
            self._seen[job.name] = (record.attempt, since)
        return asked_at - since >= TAKEN_OVER_AFTER * job.deadline


def _show(record: JobRecord) -> None:
    """Show what all replicas know of a job."""
    if record.succeeded_at is not None:
        metrics.JOB_LAST_SUCCESS.labels(record.name).set(record.succeeded_at.timestamp())
    if record.left is not None:
        metrics.JOB_BACKLOG.labels(record.name).set(record.left)
