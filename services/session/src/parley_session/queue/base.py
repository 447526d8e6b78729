"""The contract of the queue: runs that wait for the fleet, tenant by tenant.

It holds the order and nothing else. Whether a run waits is what the store says: the queue
may lose an entry (sweepers put it back) or deliver one twice (the hold decides). An entry
is acknowledged once its run is held; one that was taken and not acknowledged is given to
another taker after a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class QueueUnavailable(Exception):
    """The queue's server is away or too slow; a write may or may not have happened."""


class QueueFull(Exception):
    """As many runs wait as may; `share`: of this user, else in all."""

    def __init__(self, *, share: bool) -> None:
        super().__init__("of this user" if share else "in all")
        self.share = share


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds on what waits, in all and of one user.

    They judge who comes; a run that was accepted is always let wait.
    """

    total: int = 512
    user: int = 32
    # Seconds for which a place is kept that is neither taken nor given back.
    reserve_seconds: float = 60.0
    # Seconds after which an entry that was taken and not acknowledged is taken again.
    redeliver_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """A run that waits, and whose it is."""

    run_id: str
    tenant: str
    user: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A ticket that was taken, to be acknowledged or put back under `entry`."""

    ticket: Ticket
    entry: str


class RunQueue(Protocol):
    """Every method may raise QueueUnavailable."""

    async def reserve(self, ticket: Ticket) -> None:
        """Keep a place for a run that may come to wait; repeatable. Raises QueueFull.

        The place counts as one who waits, until `put`, `release`, or the end of
        `QueueLimits.reserve_seconds`.
        """

    async def release(self, ticket: Ticket) -> None:
        """Give back a place that was kept; repeatable."""

    async def put(self, ticket: Ticket) -> bool:
        """Let a run wait, at the end of its tenant's line. False: it does already."""

    async def size(self) -> int:
        """Return how many wait, in all."""

    async def position(self, ticket: Ticket) -> int | None:
        """Return a run's place, tenants being served in turn; 1 is next. None: it does not wait."""

    async def take(self) -> Delivery | None:
        """Take the oldest entry of the tenant whose turn it is. None: nothing waits."""

    async def put_back(self, delivery: Delivery) -> None:
        """Let what was taken wait again; it keeps its position."""

    async def done(self, delivery: Delivery) -> None:
        """Acknowledge: the run is held, or is none any more."""

    async def wait(self, seconds: float) -> None:
        """Wait until something was put, `seconds` at most."""

    async def close(self) -> None:
        """Let go of the connections."""
