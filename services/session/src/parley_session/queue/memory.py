"""A `RunQueue` in memory: for tests, and the reference of what the contract means."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from parley_session.queue.base import Delivery, QueueFull, QueueLimits, QueueUnavailable, Ticket


@dataclass(slots=True)
class _Entry:
    id: str
    ticket: Ticket
    # When it was taken; None: nobody has.
    taken: float | None = None


class MemoryRunQueue:
    """Runs that wait in one process. `monotonic` gives seconds; while `away`, all is refused."""

    def __init__(
        self, limits: QueueLimits | None = None, *, monotonic: Callable[[], float]
    ) -> None:
        self.away = False
        self.limits = limits or QueueLimits()
        self._monotonic = monotonic
        self._numbers = itertools.count(1)
        # Tenants in the order in which they are served; entries of each, oldest first.
        self._ring: dict[str, list[_Entry]] = {}
        # Places in line by run, which a second delivery does not change.
        self._places: dict[str, dict[str, int]] = {}
        # Places that are kept, by run, and until when.
        self._held: dict[str, tuple[Ticket, float]] = {}
        self._put = asyncio.Event()

    def wipe(self) -> None:
        """Lose everything."""
        self._ring.clear()
        self._places.clear()
        self._held.clear()

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    async def reserve(self, ticket: Ticket) -> None:
        """See `RunQueue.reserve`."""
        self._reach()
        now = self._monotonic()
        self._held = {run: held for run, held in self._held.items() if held[1] > now}
        if ticket.run_id in self._held or ticket.run_id in self._places.get(ticket.tenant, {}):
            return
        kept = [held for held, _ in self._held.values()]
        if len(self) + len(kept) >= self.limits.total:
            raise QueueFull(share=False)
        waiting = [entry.ticket for entry in self._ring.get(ticket.tenant, ())]
        owner = (ticket.tenant, ticket.user)
        if sum((other.tenant, other.user) == owner for other in waiting + kept) >= self.limits.user:
            raise QueueFull(share=True)
        self._held[ticket.run_id] = (ticket, now + self.limits.reserve_seconds)

    async def release(self, ticket: Ticket) -> None:
        """See `RunQueue.release`."""
        self._reach()
        self._held.pop(ticket.run_id, None)

    async def put(self, ticket: Ticket) -> bool:
        """See `RunQueue.put`."""
        self._reach()
        self._held.pop(ticket.run_id, None)
        places = self._places.setdefault(ticket.tenant, {})
        if ticket.run_id in places:
            return False
        number = next(self._numbers)
        places[ticket.run_id] = number
        self._ring.setdefault(ticket.tenant, []).append(_Entry(str(number), ticket))
        self._put.set()
        return True

    async def size(self) -> int:
        """See `RunQueue.size`."""
        self._reach()
        return len(self)

    async def position(self, ticket: Ticket) -> int | None:
        """See `RunQueue.position`."""
        self._reach()
        places = self._places.get(ticket.tenant, {})
        own = places.get(ticket.run_id)
        if own is None:
            return None
        place = sum(number <= own for number in places.values())
        others = (len(of) for tenant, of in self._places.items() if tenant != ticket.tenant)
        return place + sum(min(place, waiting) for waiting in others)

    async def take(self) -> Delivery | None:
        """See `RunQueue.take`."""
        self._reach()
        now = self._monotonic()
        for tenant in list(self._ring):
            self._ring[tenant] = self._ring.pop(tenant)
            for entry in self._ring[tenant]:
                if entry.taken is None or now - entry.taken >= self.limits.redeliver_seconds:
                    entry.taken = now
                    return Delivery(entry.ticket, entry.id)
        return None

    async def put_back(self, delivery: Delivery) -> None:
        """See `RunQueue.put_back`."""
        self._reach()
        entries = self._ring.get(delivery.ticket.tenant, [])
        for entry in entries:
            if entry.id == delivery.entry:
                entries.remove(entry)
                entries.append(_Entry(str(next(self._numbers)), delivery.ticket))
                return

    async def done(self, delivery: Delivery) -> None:
        """See `RunQueue.done`."""
        self._reach()
        tenant = delivery.ticket.tenant
        kept = [entry for entry in self._ring.get(tenant, ()) if entry.id != delivery.entry]
        if len(kept) == len(self._ring.get(tenant, ())):
            return
        self._places[tenant].pop(delivery.ticket.run_id, None)
        if kept:
            self._ring[tenant] = kept
        else:
            del self._ring[tenant], self._places[tenant]

    async def wait(self, seconds: float) -> None:
        """See `RunQueue.wait`."""
        self._put.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._put.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    def _reach(self) -> None:
        if self.away:
            raise QueueUnavailable("the queue is away")
