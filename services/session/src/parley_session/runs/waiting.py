"""What one who waits for a run to be made is told: its place, and how long it may take."""

from __future__ import annotations

from parley_session.domain.model import Chat, Run
from parley_session.runs.live import Queued

# Weight of the newest run in the mean duration.
_WEIGHT = 0.2


class Pace:
    """How long runs take lately, as this replica sees it: an exponential mean, in seconds."""

    def __init__(self) -> None:
        self._mean: float | None = None

    def took(self, seconds: float) -> None:
        """Take note of a run, from its being held to its commit."""
        self._mean = (
            seconds if self._mean is None else ((1 - _WEIGHT) * self._mean + _WEIGHT * seconds)
        )

    def of(self, runs: int, at_once: int = 1) -> float | None:
        """Seconds that `runs` take, `at_once` of them at a time; None: not known yet."""
        return None if self._mean is None else round(self._mean * runs / max(1, at_once), 1)


def place_in_chat(run: Run, chat: Chat, pace: Pace) -> Queued | None:
    """The place of a run behind others of its chat; None: it is behind none."""
    for ahead, turn in enumerate(chat.pending):
        if turn.run == run.id:
            return Queued(ahead, pace.of(ahead)) if ahead else None
    return None
