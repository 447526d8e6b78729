"""Simulated time: what happens next, in order."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Events:
    """A queue of events by time (seconds); those of one time in the order they were put."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something at a time, or now if that has passed."""
        heapq.heappush(self._heap, (max(time, self.now), next(self._order), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after so many seconds."""
        self.at(self.now + seconds, action)

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action = heapq.heappop(self._heap)
            action()
        self.now = until
