"""Whether the load generator itself was the limit.

Two signs: the process used most of one core, or it woke up late from short
sleeps. Times measured meanwhile are the generator's, not the service's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

BUSY_CPU = 0.85
"""Share of one core above which a second counts as busy: Python runs on one."""
LATE_SECONDS = 0.05
"""Lateness of a wake-up above which it counts as late."""
TOLERATED = 0.05
"""Share of busy seconds, or of late wake-ups, that is still fine."""


@dataclass(slots=True)
class Health:
    """Counts of one generator process."""

    seconds: int = 0
    busy_seconds: int = 0
    worst_cpu: float = 0.0
    wakes: int = 0
    late_wakes: int = 0
    worst_lateness: float = 0.0

    def note_cpu(self, share: float) -> None:
        """Note a second in which so much of one core was used."""
        self.seconds += 1
        self.busy_seconds += share > BUSY_CPU
        self.worst_cpu = max(self.worst_cpu, share)

    def note_wake(self, lateness: float) -> None:
        """Note a wake-up, so many seconds late."""
        self.wakes += 1
        self.late_wakes += lateness > LATE_SECONDS
        self.worst_lateness = max(self.worst_lateness, lateness)

    def warning(self) -> str | None:
        """Say in a sentence that the generator was the limit, or None: it was not."""
        signs = []
        if self.seconds and self.busy_seconds / self.seconds > TOLERATED:
            signs.append(
                f"it used over {BUSY_CPU:.0%} of a core in {self.busy_seconds} of "
                f"{self.seconds} s (worst {self.worst_cpu:.0%})"
            )
        if self.wakes and self.late_wakes / self.wakes > TOLERATED:
            signs.append(
                f"it woke up late {self.late_wakes} of {self.wakes} times "
                f"(worst {self.worst_lateness * 1e3:.0f} ms)"
            )
        if not signs:
            return None
        return (
            f"The load generator itself was the limit: {' and '.join(signs)}. Times above are "
            "partly its own: use more WORKERS, fewer USERS, or another machine."
        )

    def as_dict(self) -> dict[str, Any]:
        """Give the counts for a report to the master."""
        return asdict(self)


def watch(
    health: Health,
    cpu_seconds: Callable[[], float],
    sleep: Callable[[float], None],
    stopped: Callable[[], bool],
) -> None:
    """Take the generator's pulse until stopped.

    Args:
        health: where it is noted.
        cpu_seconds: CPU time used by this process so far.
        sleep: gives way to the others (gevent's).
        stopped: ends the watch.
    """
    pause = 0.05
    began, used = time.monotonic(), cpu_seconds()
    while not stopped():
        before = time.monotonic()
        sleep(pause)
        now = time.monotonic()
        health.note_wake(now - before - pause)
        if now - began >= 1.0:
            total = cpu_seconds()
            health.note_cpu((total - used) / (now - began))
            began, used = now, total
