"""Reading an answer from any position, wherever it is made or kept.

A reader is served by the feed of a run that is made here, by the log of one that is
made elsewhere, and by the store for one that has ended. It may move from each to any
other, and is sent only what lies beyond its own position.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from parley_session.clock import Clock
from parley_session.domain import errors
from parley_session.domain.model import Chat, Principal, Run
from parley_session.queue.gate import Gate
from parley_session.runs.asking import is_gone
from parley_session.runs.finishing import Finisher
from parley_session.runs.live import Ended, Gone, LiveRun, Piece, Queued, check_end, tail_of
from parley_session.runs.log import BEGINNING, LogEntry, LogMissing, LogUnavailable, Place, RunLog
from parley_session.runs.registry import LiveRuns
from parley_session.runs.taking import Taker
from parley_session.store.base import Store

_log = logging.getLogger(__name__)

# Seconds between two looks at the store for a run that is made elsewhere: no reader
# waits on the log alone.
LOOK_SECONDS = 0.25
LOOK_SECONDS_WITH_LOG = 2.0
# The same for one that waits to be made, if it is not the next one.
LOOK_SECONDS_IN_LINE = 1.0


@dataclass(slots=True)
class _Read:
    """How far a reader has come in the log that it reads."""

    stream: str = ""
    place: Place = BEGINNING


class Follower:
    """Serves readers. Raises StoreUnavailable."""

    def __init__(
        self,
        *,
        store: Store,
        log: RunLog,
        live_runs: LiveRuns,
        finisher: Finisher,
        taker: Taker,
        gate: Gate,
        clock: Clock,
    ) -> None:
        self._store = store
        self._log = log
        self._live_runs = live_runs
        self._finisher = finisher
        self._taker = taker
        self._gate = gate
        self._clock = clock

    async def find(self, principal: Principal, run_id: str) -> tuple[Run, Chat]:
        """Read a run and its chat. Raises `not_found`, also when the chat is deleted."""
        run = await self._store.get_run(principal, run_id)
        if run is None:
            raise errors.not_found("run")
        chat = await self._store.get_chat(Principal(run.tenant, run.user), run.chat)
        if chat is None or is_gone(chat, self._clock):
            raise errors.not_found("run")
        return run, chat

    async def check(self, run: Run, offset: int) -> None:
        """Refuse a position in a run's answer that can be none. Raises `bad_event_id`.

        No reader has more than the log held before this call, as far as there is one: a
        position beyond what can be known is left to `follow`.
        """
        if run.state.final:
            length = len(run.content.encode())
            check_end(run, offset, length)
            if offset < length:
                tail_of(run.content, offset)
            return
        if run.started_at is None and offset > 0:
            raise errors.bad_event_id()
        live = self._live_runs.find(run.id)
        if live is not None and offset <= live.length:
            live.check(offset)
        elif run.log is not None and offset > 0:
            await self._check_in_log(run.log, offset)

    async def _check_in_log(self, stream: str, offset: int) -> None:
        length = 0
        try:
            entries = await self._log.read(stream)
        except (LogMissing, LogUnavailable):
            return
        for entry in entries:
            length = entry.offset + len(entry.text.encode())
            if entry.offset <= offset < length:
                tail_of(entry.text, offset - entry.offset)
                return
        if offset > length:
            raise errors.bad_event_id()

    async def follow(
        self,
        principal: Principal,
        run_id: str,
        offset: int,
        live: LiveRun | None = None,
        *,
        lost_replica: str = "",
    ) -> AsyncGenerator[Queued | Piece | Ended, None]:
        """Yield the answer beyond `offset` bytes, then how it ended; the last is Ended.

        While the run waits to be made, its place is told whenever it changes. `live`: the
        feed that the caller was just given. `lost_replica`: the connection to that replica
        was just lost; where it holds the run, that is a hint to take it over.

        Raises `not_found` when the chat is deleted meanwhile, `store_unavailable`,
        `bad_event_id`, and `unavailable` when this replica stops and the run is not made
        here: another one goes on. The caller bounds the time and closes the iterator.
        """
        position = offset
        read = _Read()
        told: Queued | None = None
        while True:
            if live is None:
                run, chat = await self.find(principal, run_id)
                live = self._live_runs.find(run_id)
            if live is not None:
                async with aclosing(live.read(position)) as pieces:
                    async for piece in pieces:
                        position = piece.end
                        yield piece
                if (ended := _end_of(live)) is not None:
                    yield ended
                    return
                # Another attempt makes it: here again, elsewhere, or it has ended.
                run, chat = await self.find(principal, run_id)
            if run.state.final:
                if (rest := _rest_of(run, position)) is not None:
                    yield rest
                yield await self._finisher.finish_if_pending(run, chat)
                return
            live, lost_replica = await self._take(run, lost_replica), ""
            if live is not None:
                continue
            if run.attempt == 0:
                place = await self._gate.place(run, chat)
                if place is not None and place != told:
                    yield place
                told = place
                live = await self._live_runs.launched(run_id, _pause_at(place))
                continue
            async with aclosing(self._elsewhere(run, position, read)) as pieces:
                async for piece in pieces:
                    position = piece.end
                    yield piece

    async def _take(self, run: Run, lost_replica: str) -> LiveRun | None:
        """Take the run over if its holder is known to be gone, or seems to be."""
        if self._live_runs.closing:
            raise errors.moved()
        live = self._taker.take_handed_over(run)
        if live is None and lost_replica:
            live = await self._taker.take_on_hint(run, lost_replica)
        return live

    async def _elsewhere(self, run: Run, position: int, read: _Read) -> AsyncGenerator[Piece, None]:
        """Yield what is logged of a run made elsewhere; ends when the store is to be asked.

        That is: at the last event, when the log is gone, or when nothing came for a while.
        """
        if run.log is None:
            await asyncio.sleep(LOOK_SECONDS)
            return
        if read.stream != run.log:
            read.stream, read.place = run.log, BEGINNING
        async with aclosing(self._log.follow(run.log, read.place)) as entries:
            while True:
                try:
                    async with asyncio.timeout(LOOK_SECONDS_WITH_LOG):
                        entry = await anext(entries)
                except (TimeoutError, StopAsyncIteration):
                    return
                except (LogMissing, LogUnavailable):
                    await asyncio.sleep(LOOK_SECONDS)
                    return
                if entry.last:
                    return
                read.place = entry.place
                piece = _beyond(entry, position)
                if piece is not None:
                    position = piece.end
                    yield piece


def _end_of(live: LiveRun) -> Ended | None:
    """How a feed that was read to its end has ended; None: the run goes on elsewhere."""
    if live.ending is Gone.DELETED:
        raise errors.not_found("run")
    if live.ending is Gone.UNSTORED:
        raise errors.store_unavailable()
    return live.ending if isinstance(live.ending, Ended) else None


def _rest_of(run: Run, position: int) -> Piece | None:
    """Return what a reader has not seen of a run that has ended. Raises `bad_event_id`."""
    length = len(run.content.encode())
    check_end(run, position, length)
    return Piece(tail_of(run.content, position), length) if position < length else None


def _pause_at(place: Queued | None) -> float:
    next_one = place is None or place.position == 1
    return LOOK_SECONDS if next_one else LOOK_SECONDS_IN_LINE


def _beyond(entry: LogEntry, position: int) -> Piece | None:
    """Return what of an entry lies beyond a reader's position; a gap is nothing to send."""
    end = entry.offset + len(entry.text.encode())
    if end <= position or entry.offset > position:
        return None
    return Piece(tail_of(entry.text, position - entry.offset), end)
