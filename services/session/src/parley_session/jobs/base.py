"""What a periodic job is.

Every job may be done twice, or by two replicas at once, without harm: claims save work,
they protect nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

# A backlog is counted no further.
MOST_COUNTED = 10_000


class Unfinished(Exception):
    """A part that the job needs is away; what is left waits for the job's next time."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job. Times are in seconds.

    `work` is given when the last run that succeeded began (None: unknown), raises
    Unfinished or StoreUnavailable, and may be cancelled anywhere. `left` counts what is
    to be done still. A job that is `shared` is done by one replica for all, any other by
    every replica for itself.
    """

    name: str
    period: float
    deadline: float
    work: Callable[[datetime | None], Awaitable[None]]
    left: Callable[[], Awaitable[int]] | None = None
    shared: bool = True
