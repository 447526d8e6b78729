"""The runs that this replica makes now: each a task of its own.

No caller's deadline, cancellation or flow control reaches such a task; it ends by its
own stored deadline. How many there are is bounded.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from parley_session import metrics
from parley_session.domain.errors import moved, overloaded
from parley_session.domain.model import Run
from parley_session.runs.live import Gone, LiveRun
from parley_session.runs.making import Maker
from parley_session.runs.signal import Stop, StopSignal
from parley_session.runs.work import Known
from parley_session.store.base import StoreUnavailable

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    live: LiveRun
    signal: StopSignal
    task: asyncio.Task[None]


class LiveRuns:
    """Launches, finds and stops the runs made here; at most `limit` at a time."""

    def __init__(self, maker: Maker, limit: int) -> None:
        self._maker = maker
        self._limit = limit
        self._entries: dict[str, _Entry] = {}
        # Readers of runs that are not made here yet.
        self._awaited: dict[str, list[asyncio.Future[LiveRun]]] = {}
        self._reserved = 0
        self._closing = False

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def holder(self) -> str:
        """The name under which runs are held here."""
        return self._maker.holder

    @property
    def closing(self) -> bool:
        """Whether this replica is stopping."""
        return self._closing

    def has_room(self) -> bool:
        """Whether another run may be launched."""
        return not self._closing and len(self._entries) + self._reserved < self._limit

    @property
    def on_their_way(self) -> int:
        """Runs that are to be drawn, by engines that do not know of them yet."""
        return self._reserved + sum(not entry.live.drawn for entry in self._entries.values())

    @contextmanager
    def reserve(self) -> Iterator[None]:
        """Keep room for one run while the body decides on it. Raises `overloaded`."""
        if self._closing:
            raise moved()
        if not self.has_room():
            raise overloaded("this replica makes as many answers as it may")
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

    def launch(
        self,
        run: Run,
        known: Known | None = None,
        *,
        detached: bool = False,
        prepare: Callable[[], Awaitable[Run | None]] | None = None,
    ) -> LiveRun:
        """Begin to make a run; its feed. One that is made here already is just that.

        `known`: the caller has inserted it as held by this replica. The task inherits the
        caller's trace; `detached`, it has none. `prepare`: the run's
        task first awaits this, which answers the run as it is stored, None if it is not to
        be made here after all.
        """
        entry = self._entries.get(run.id)
        if entry is not None:
            return entry.live
        live, signal = LiveRun(run.id), StopSignal()
        task = asyncio.create_task(
            self._make(run, live, signal, known, prepare),
            name=f"run {run.id}",
            context=contextvars.Context() if detached else None,
        )
        self._entries[run.id] = _Entry(live, signal, task)
        metrics.LIVE_RUNS.inc()
        task.add_done_callback(lambda done: self._ended(run.id, done))
        for waiting in self._awaited.pop(run.id, ()):
            if not waiting.done():
                waiting.set_result(live)
        return live

    async def launched(self, run_id: str, seconds: float) -> LiveRun | None:
        """Wait for a run to be made here; its feed, None: not within `seconds`."""
        live = self.find(run_id)
        if live is not None:
            return live
        future: asyncio.Future[LiveRun] = asyncio.get_running_loop().create_future()
        waiting = self._awaited.setdefault(run_id, [])
        waiting.append(future)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return None
        finally:
            waiting.remove(future)
            if not waiting and self._awaited.get(run_id) is waiting:
                del self._awaited[run_id]

    def find(self, run_id: str) -> LiveRun | None:
        """Return the feed of a run that is made here."""
        entry = self._entries.get(run_id)
        return entry.live if entry is not None else None

    def stop(self, run_id: str, reason: Stop) -> LiveRun | None:
        """Stop a run that is made here; its feed, None if it is not."""
        entry = self._entries.get(run_id)
        if entry is None:
            return None
        entry.signal.stop(reason)
        return entry.live

    async def drain(self, grace: float) -> None:
        """Launch no more, and let those that are here end; after `grace` seconds leave them.

        What is left is not committed: it is handed over, and others take it.
        """
        self._closing = True
        tasks = {entry.task for entry in self._entries.values()}
        if not tasks:
            return
        _, left = await asyncio.wait(tasks, timeout=grace)
        for task in left:
            task.cancel()
        if left:
            _log.warning("answers are left to other replicas", extra={"runs": len(left)})
            await asyncio.wait(left)

    async def _make(
        self,
        run: Run,
        live: LiveRun,
        signal: StopSignal,
        known: Known | None,
        prepare: Callable[[], Awaitable[Run | None]] | None,
    ) -> None:
        if prepare is not None:
            stored = None
            try:
                stored = await prepare()
            except StoreUnavailable:
                # Whoever meets the turn next begins it.
                _log.info("a turn could not be begun: the store is away", extra={"run": run.id})
            finally:
                if stored is None:
                    live.close(Gone.MOVED)
            if stored is None:
                return
            run = stored
        await self._maker.make(run, live, signal, known)

    def _ended(self, run_id: str, task: asyncio.Task[None]) -> None:
        del self._entries[run_id]
        metrics.LIVE_RUNS.dec()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("making a run failed unexpectedly", extra={"run": run_id}, exc_info=error)
