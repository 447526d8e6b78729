"""What the replicas tell each other about periodic jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class JobRecord:
    """How a job stands that one replica does for all.

    `attempt` is raised by every claim. `running`: its claim has not ended, as far as is
    known. `succeeded_at`: when the last run that succeeded began. `left`: what was still
    to be done when it was last counted.
    """

    name: str
    attempt: int
    running: bool
    due_at: datetime
    succeeded_at: datetime | None = None
    left: int | None = None


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a run of a job ended; None leaves what is known."""

    due_at: datetime
    succeeded_at: datetime | None = None
    left: int | None = None
