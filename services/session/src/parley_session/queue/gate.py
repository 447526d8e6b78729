"""Whether a run begins at once or waits for the fleet, and what one who waits is told."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from parley_session import metrics
from parley_session.domain import errors
from parley_session.domain.model import Chat, Run
from parley_session.fleet.base import ANY_MODEL, Fleet
from parley_session.queue.base import QueueFull, QueueUnavailable, RunQueue, Ticket
from parley_session.runs.live import Queued
from parley_session.runs.registry import LiveRuns
from parley_session.runs.waiting import Pace, place_in_chat

_log = logging.getLogger(__name__)


class Gate:
    """Lets runs begin while there is room, here and in the fleet; queues the others."""

    def __init__(self, queue: RunQueue, fleet: Fleet, live_runs: LiveRuns, pace: Pace) -> None:
        self._queue = queue
        self._fleet = fleet
        self._live_runs = live_runs
        self._pace = pace
        # Others wait, as far as this replica knows: nobody overtakes them.
        self.backlog = False
        # Runs being judged here that have a place in the line.
        self._reserved: set[str] = set()

    def fleet_room(self) -> int:
        """How many more answers the fleet could draw now, as far as reported."""
        return self._fleet.room(ANY_MODEL)

    def has_room(self, model: str = ANY_MODEL, tenant: str | None = None) -> bool:
        """Whether this replica can make another run, and the fleet draw it at once.

        By the engines that a tenant is allowed; None: by all.
        """
        room = self._fleet.room(model, tenant) if self._live_runs.has_room() else 0
        return room > self._live_runs.on_their_way

    def is_open(self, model: str, tenant: str) -> bool:
        """Whether a run that comes now begins now."""
        return not self.backlog and self.has_room(model, tenant)

    @asynccontextmanager
    async def admit(self, model: str, ticket: Ticket) -> AsyncIterator[bool]:
        """Keep a place for a run while the body decides on it.

        True: here, to begin at once. False: in the line, which `put` takes. Raises
        `queue_full` (the user's share), `overloaded` (in all, or nothing can wait), and
        `unavailable` where this replica is stopping.
        """
        if self.is_open(model, ticket.tenant):
            with self._live_runs.reserve():
                yield True
            return
        await self._reserve(ticket)
        try:
            yield False
        finally:
            await self._release(ticket)

    async def _reserve(self, ticket: Ticket) -> None:
        if self._live_runs.closing:
            raise errors.moved()
        try:
            await self._queue.reserve(ticket)
        except QueueFull as full:
            raise (errors.share_full() if full.share else errors.line_full()) from full
        except QueueUnavailable as error:
            raise errors.overloaded("all engines are at work, and nothing can wait now") from error
        self._reserved.add(ticket.run_id)

    async def _release(self, ticket: Ticket) -> None:
        """Give back a place that was not taken."""
        if ticket.run_id not in self._reserved:
            return
        self._reserved.discard(ticket.run_id)
        try:
            await self._queue.release(ticket)
        except QueueUnavailable:
            _log.info("a place in the queue is kept until it expires", extra={"run": ticket.run_id})

    async def put(self, run: Run) -> bool | None:
        """Let an accepted run wait. False: it does; None: the queue is away.

        Then sweepers put it there later, or have it made when its lease has run out.
        """
        try:
            put = await self._queue.put(_ticket(run))
        except QueueUnavailable:
            _log.warning("a run could not be queued", extra={"run": run.id})
            return None
        self._reserved.discard(run.id)
        self.backlog = True
        if put:
            metrics.QUEUED.inc()
        return put

    async def place(self, run: Run, chat: Chat) -> Queued | None:
        """Tell the place of a run that nobody holds; None: it is about to be made."""
        in_chat = place_in_chat(run, chat, self._pace)
        if in_chat is not None:
            return in_chat
        try:
            position = await self._queue.position(_ticket(run))
        except QueueUnavailable:
            return None
        if position is None:
            return None
        at_once = self._fleet.capacity(run.request.model, run.tenant)
        return Queued(position, self._pace.of(position, at_once))


def _ticket(run: Run) -> Ticket:
    return Ticket(run.id, run.tenant, run.user)
