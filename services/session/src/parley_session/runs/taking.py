"""Taking a run over from its holder.

By the lease: a beat that stood still for as long (`Sightings` keeps what was seen). At
once where the holder said that it hands over; and on a hint, which is a reader whose
connection to the holder was reset. A hint may be wrong, and the fence makes early
takeover safe, not free: so the log is looked at first. One that is not whole is left to
the lease, because a living holder would complete what a taker could only end; one that
grows meanwhile has a living holder.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace

from parley_session import metrics
from parley_session.clock import Clock
from parley_session.domain.model import Principal, Run
from parley_session.runs.live import LiveRun
from parley_session.runs.log import LogMissing, LogUnavailable, RunLog
from parley_session.runs.registry import LiveRuns
from parley_session.store.base import Store

_log = logging.getLogger(__name__)

# Seconds for which a log that a holder writes to may stand still: an engine's chunks are
# tens of milliseconds apart.
PROBE_SECONDS = 0.3
# Holders lost after which hints are no longer heeded: false ones do not poison a run.
MAX_HINTED_FAULTS = 2


class Taker:
    """Takes runs over, as far as there is room here."""

    def __init__(self, store: Store, log: RunLog, live_runs: LiveRuns) -> None:
        self._store = store
        self._log = log
        self._live_runs = live_runs

    def take(self, run: Run, why: str) -> LiveRun | None:
        """Take a run over; its feed. `why`: lease, handover or hint.

        Unless it was handed over, its holder was lost while making it, which may be the
        run's own fault: that is counted with it (see `making.MAX_FAULTS`).
        """
        if not self._live_runs.has_room():
            return None
        found = "started" if run.started_at else "held" if run.attempt else "queued"
        metrics.TAKEOVERS.labels(found, why).inc()
        _log.warning(
            "taking a run over",
            extra={"run": run.id, "attempt": run.attempt, "found": found, "why": why},
        )
        if run.attempt > 0 and why != "handover":
            run = replace(run, faults=run.faults + 1)
        return self._live_runs.launch(run, detached=True)

    def take_handed_over(self, run: Run) -> LiveRun | None:
        """Take over a run whose holder has stopped and said so."""
        return self.take(run, "handover") if is_handed_over(run) else None

    async def take_on_hint(self, run: Run, lost_replica: str) -> LiveRun | None:
        """Take over from `lost_replica` if that holds the run and seems to be gone.

        Raises StoreUnavailable.
        """
        if run.state.final or run.attempt == 0 or run.holder != lost_replica:
            return None
        if run.faults >= MAX_HINTED_FAULTS:
            return None
        before = await self._written(run)
        if before is None:
            return None
        await asyncio.sleep(PROBE_SECONDS)
        now = await self._store.get_run(Principal(run.tenant, run.user), run.id)
        if now is None or now.state.final or (now.attempt, now.beat) != (run.attempt, run.beat):
            return None
        return self.take(now, "hint") if await self._written(now) == before else None

    async def _written(self, run: Run) -> int | None:
        """Count what the log holds. None: it is not whole, so only the lease decides."""
        if run.started_at is None:
            # Nothing was seen of it yet: it is made anew.
            return 0
        if run.log is None:
            return None
        try:
            return len(await self._log.read(run.log))
        except (LogMissing, LogUnavailable):
            return None


def is_handed_over(run: Run) -> bool:
    """Whether the holder of a run has stopped, and said so."""
    return not run.state.final and 0 < run.attempt == run.handed_over


@dataclass(frozen=True, slots=True)
class _Sighting:
    """What was last read of a run, and when it was first read so (monotonic)."""

    attempt: int
    beat: int
    since: float


class Sightings:
    """For how long the beats of runs have stood still, by this replica's own reads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, _Sighting] = {}
        self._seen: dict[str, _Sighting] = {}

    def silent_for(self, run: Run, asked_at: float) -> float:
        """Seconds from after the first read that showed this beat until `asked_at`.

        `asked_at`: the monotonic time just before the read that gave `run`.
        """
        known = self._known.get(run.id)
        if known is None or (known.attempt, known.beat) != (run.attempt, run.beat):
            known = _Sighting(run.attempt, run.beat, self._clock.monotonic())
        self._seen[run.id] = known
        return asked_at - known.since

    def forget(self) -> None:
        """Begin anew: the store was away, and no holder could move its beat meanwhile."""
        self._known.clear()
        self._seen.clear()

    def end_pass(self) -> None:
        """Forget what was not seen in this pass: it is no candidate any more."""
        self._known, self._seen = self._seen, {}
