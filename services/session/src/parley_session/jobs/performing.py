"""One run of a job: claimed where it is shared, bounded in time, counted, logged by name."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from parley_session import metrics
from parley_session.clock import Clock
from parley_session.jobs.base import Job, Unfinished
from parley_session.jobs.claims import Claim, Claims
from parley_session.runs.uninterrupted import uninterrupted
from parley_session.store.base import StoreUnavailable

_log = logging.getLogger(__name__)

# For how long a replica that ends tries to say so of a job.
RELEASE_SECONDS = 1.0


class Performer:
    """Performs jobs. A run that fails is logged and counted, and raises nothing."""

    def __init__(self, claims: Claims, clock: Clock) -> None:
        self._claims = claims
        self._clock = clock

    async def perform(self, job: Job) -> None:
        """Do a job once, if it is this replica's to do now."""
        if not job.shared:
            began_at = self._clock.now()
            if await self._do(job, None) == "ok":
                metrics.JOB_LAST_SUCCESS.labels(job.name).set(began_at.timestamp())
            return
        try:
            claim = await self._claims.claim(job)
        except StoreUnavailable:
            metrics.JOB_RUNS.labels(job.name, "store_unavailable").inc()
            return
        if claim is not None:
            await self._perform(claim)

    async def _perform(self, claim: Claim) -> None:
        try:
            outcome = await self._do(claim.job, claim.since)
        except asyncio.CancelledError:
            await uninterrupted(self._release(claim))
            raise
        # Acknowledged at the end: whoever dies before leaves the job to be done again.
        try:
            left = await claim.job.left() if claim.job.left is not None else None
            await self._claims.end(claim, succeeded=outcome == "ok", left=left)
        except StoreUnavailable:
            _log.warning("the end of a job could not be stored", extra={"job": claim.job.name})

    async def _release(self, claim: Claim) -> None:
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._claims.release(claim)
        except (StoreUnavailable, TimeoutError):
            _log.warning("a job that was stopped waits to be taken", extra={"job": claim.job.name})

    async def _do(self, job: Job, since: datetime | None) -> str:
        """Do the work of a job; the outcome."""
        outcome = "stopped"
        began = self._clock.monotonic()
        try:
            outcome = await self._outcome(job, since)
            return outcome
        finally:
            metrics.JOB_RUNS.labels(job.name, outcome).inc()
            metrics.JOB_SECONDS.labels(job.name).observe(self._clock.monotonic() - began)

    async def _outcome(self, job: Job, since: datetime | None) -> str:
        details = {"job": job.name}
        try:
            async with asyncio.timeout(job.deadline) as bound:
                await job.work(since)
        except StoreUnavailable as error:
            _log.warning("a job found the store away", extra=details | {"reason": str(error)})
            return "store_unavailable"
        except Unfinished as error:
            _log.warning("a job is unfinished", extra=details | {"reason": str(error)})
            return "unfinished"
        except Exception as error:  # noqa: BLE001 - a job outlives its defects, and so do others
            if isinstance(error, TimeoutError) and bound.expired():
                _log.warning("a job met its deadline", extra=details)
                return "timed_out"
            _log.exception("a job failed unexpectedly", extra=details)
            return "failed"
        return "ok"
