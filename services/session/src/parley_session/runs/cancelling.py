"""Stopping a run at its user's wish; what there is of the answer is kept."""

from __future__ import annotations

import asyncio

from parley_session.domain.model import Principal, Run
from parley_session.runs.following import Follower
from parley_session.runs.live import Ended
from parley_session.runs.registry import LiveRuns
from parley_session.runs.signal import Stop
from parley_session.store.base import Store

# Seconds between two looks at the store, for a run that is made elsewhere.
LOOK_SECONDS = 0.1


class Canceller:
    """Cancels runs. Raises StoreUnavailable."""

    def __init__(self, store: Store, live_runs: LiveRuns, follower: Follower) -> None:
        self._store = store
        self._live_runs = live_runs
        self._follower = follower

    async def cancel(self, principal: Principal, run_id: str, wait_seconds: float) -> Run:
        """Ask a run to stop, and wait for its end to be stored; the run as it then is.

        A run that has ended is left as it is. Raises `not_found`.
        """
        await self._follower.find(principal, run_id)
        # In the store for a holder elsewhere, or the next one; then at once, if it is here.
        run = await self._store.request_cancel(principal, run_id)
        live = self._live_runs.stop(run_id, Stop.CANCELLED)
        waits = run is not None and run.attempt == 0 and not run.state.final
        if live is None and run is not None and waits and self._live_runs.has_room():
            # It would wait for nothing: its end is made here, ahead of its turn.
            live = self._live_runs.launch(run, detached=True)
        try:
            async with asyncio.timeout(wait_seconds):
                if live is not None and isinstance(ending := await live.closed(), Ended):
                    return ending.run
                while True:
                    run, _ = await self._follower.find(principal, run_id)
                    if run.state.final:
                        return run
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            run, _ = await self._follower.find(principal, run_id)
            return run
