"""Taking runs from the queue as there is room for them, tenant by tenant."""

from __future__ import annotations

import asyncio
import logging

from parley_session import metrics
from parley_session.domain.model import Principal, Run
from parley_session.queue.base import Delivery, QueueUnavailable, RunQueue
from parley_session.queue.gate import Gate
from parley_session.runs.live import LiveRun
from parley_session.runs.registry import LiveRuns
from parley_session.runs.taking import is_handed_over
from parley_session.store.base import Store, StoreUnavailable

_log = logging.getLogger(__name__)

# Seconds between two looks for room while runs wait.
ROOM_LOOK_SECONDS = 0.05
# The longest wait for something to be put; what others put back is found by then.
IDLE_SECONDS = 1.0
# Seconds until queue or store are asked again after they were away.
RETRY_SECONDS = 0.5


class Dispatcher:
    """Makes queued runs here. An entry is acknowledged once its run is held."""

    def __init__(self, queue: RunQueue, gate: Gate, store: Store, live_runs: LiveRuns) -> None:
        self._queue = queue
        self._gate = gate
        self._store = store
        self._live_runs = live_runs
        # Acknowledgements under way: at most one a live run.
        self._acknowledging: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Dispatch until cancelled."""
        while True:
            metrics.FLEET_ROOM.set(self._gate.fleet_room())
            try:
                if await self.dispatch():
                    continue
                if self._gate.backlog or not self._gate.has_room():
                    await asyncio.sleep(ROOM_LOOK_SECONDS)
                else:
                    await self._queue.wait(IDLE_SECONDS)
            except (QueueUnavailable, StoreUnavailable):
                # Nobody waits in a queue that is away: newcomers begin while there is room.
                self._gate.backlog = False
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # noqa: BLE001 - the dispatcher outlives its defects
                _log.exception("dispatching failed unexpectedly")
                await asyncio.sleep(RETRY_SECONDS)

    async def dispatch(self) -> bool:
        """Take one entry and begin its run. False: no room, or nothing that waits for it.

        Raises QueueUnavailable, StoreUnavailable: the entry is delivered again.
        """
        if not self._gate.has_room():
            return False
        delivery = await self._queue.take()
        self._gate.backlog = delivery is not None
        if delivery is None:
            return False
        run = await self._wanted(delivery)
        if run is None:
            await self._queue.done(delivery)
            return True
        if not self._gate.has_room(run.request.model, run.tenant):
            await self._queue.put_back(delivery)
            return False
        metrics.DISPATCHED.inc()
        live = self._live_runs.launch(run, detached=True)
        task = asyncio.create_task(self._acknowledge(live, delivery))
        self._acknowledging.add(task)
        task.add_done_callback(self._acknowledging.discard)
        return True

    async def _wanted(self, delivery: Delivery) -> Run | None:
        """Read the run of an entry; None: it is not to be made now, or not here.

        One that is stored later, or becomes the first of its chat later, is put again by
        whoever does that, or by the sweepers.
        """
        ticket = delivery.ticket
        principal = Principal(ticket.tenant, ticket.user)
        run = await self._store.get_run(principal, ticket.run_id)
        if run is None or run.state.final or (run.attempt > 0 and not is_handed_over(run)):
            return None
        chat = await self._store.get_chat(principal, run.chat)
        if chat is None or chat.deleted_at is not None or not chat.pending:
            return None
        return run if chat.pending[0].run == run.id else None

    async def _acknowledge(self, live: LiveRun, delivery: Delivery) -> None:
        await live.held()
        try:
            await self._queue.done(delivery)
        except QueueUnavailable:
            # Delivered again, and found to be held.
            _log.info("an entry could not be acknowledged", extra={"run": live.run_id})
