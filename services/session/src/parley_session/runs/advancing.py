"""Starting the turn that has become the first of its chat.

Whoever takes a turn off `pending` starts the next one; so does whoever accepts a turn
and finds it at the head, because the one before was settled meanwhile. Neither need
know of the other: a run that is started twice is held once.
"""

from __future__ import annotations

from functools import partial

from parley_session import metrics
from parley_session.domain.model import Chat, Run, Turn
from parley_session.queue.gate import Gate
from parley_session.runs.finishing import Finisher
from parley_session.runs.live import LiveRun
from parley_session.runs.registry import LiveRuns
from parley_session.runs.turns import run_of, store_turn
from parley_session.store.base import Store


class Advancer:
    """Starts heads, or lets them wait for the fleet."""

    def __init__(self, store: Store, live_runs: LiveRuns, finisher: Finisher, gate: Gate) -> None:
        self._gate = gate
        self._store = store
        self._live_runs = live_runs
        self._finisher = finisher

    async def advance(self, chat: Chat) -> LiveRun | None:
        """Begin to answer the first pending turn of a chat as it was just read; its feed.

        None: there is none, or it waits for the fleet. Where there is room this waits for
        nothing: what the turn implies is stored by the run's own task. Raises
        StoreUnavailable.
        """
        if chat.deleted_at is not None or not chat.pending:
            return None
        turn = chat.pending[0]
        if self._gate.is_open(turn.request.model, chat.tenant):
            return self._live_runs.launch(
                run_of(chat, turn),
                detached=True,
                prepare=partial(self._prepare, chat, turn, self._live_runs.holder),
            )
        run = await self._prepare(chat, turn)
        if run is not None:
            await self._gate.put(run)
        return None

    async def _prepare(self, chat: Chat, turn: Turn, maker: str = "") -> Run | None:
        """Store what the turn implies; its run, None: it is not to be begun.

        `maker`: the replica in whose task for the run this is. What that replica holds is
        to be made here: its acceptance inserted the run, found this task, and left it to it.
        """
        run = await store_turn(self._store, chat, turn)
        if run is None:
            return None
        if run.state.final:
            # It was cancelled while it waited; the one behind it is next.
            await self._finisher.finish(run)
            return None
        if run.attempt > 0 and run.holder != maker:
            return None
        metrics.ADVANCED.inc()
        return run
