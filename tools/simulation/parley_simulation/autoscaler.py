"""The HorizontalPodAutoscaler, as Kubernetes documents it, and signals to give it.

Every 15 s: desired = ceil(signal / target), left as it is within a tolerance of 10 %; up at once,
by at most 100 % or 4 replicas, whichever is more; down to the most that was desired within the
stabilisation window. A replica that was asked for is ready after `start_seconds`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from parley_session.fleet.scaling import TARGET, demand
from parley_simulation.world import World

SYNC_SECONDS = 15.0
TOLERANCE = 0.1
DOWN_SECONDS = 300.0
MOST = 40
LEAST = 2

# Gives what replicas to have by the signal: a number not yet rounded up.
Signal = Callable[[World], float]


@dataclass(slots=True)
class Scaled:
    """What an autoscaler did."""

    replica_seconds: float = 0.0
    ups: int = 0
    downs: int = 0
    # Changes of direction: up after down, or down after up.
    turns: int = 0
    most: int = 0


class Autoscaler:
    """Scales a world by a signal."""

    def __init__(self, world: World, signal: Signal, start_seconds: float) -> None:
        self.scaled = Scaled()
        self._world = world
        self._signal = signal
        self._start_seconds = start_seconds
        self._starting = 0
        # Replicas asked for that are to be dropped as soon as they have started.
        self._unwanted = 0
        self._wishes: deque[tuple[float, int]] = deque()
        self._direction = 0
        world.events.after(SYNC_SECONDS, self._sync)

    @property
    def replicas(self) -> int:
        """Replicas that exist, those that start included."""
        return len(self._world.engines) + self._starting

    def _sync(self) -> None:
        world, now = self._world, self._world.events.now
        self.scaled.replica_seconds += self.replicas * SYNC_SECONDS
        self.scaled.most = max(self.scaled.most, self.replicas)
        current = len(world.ready()) + self._starting - self._unwanted
        wanted = self._signal(world)
        desired = current if abs(wanted / current - 1) <= TOLERANCE else math.ceil(wanted - 1e-9)
        desired = min(MOST, max(LEAST, desired))
        self._wishes.append((now, desired))
        while now - self._wishes[0][0] > DOWN_SECONDS:
            self._wishes.popleft()
        if desired > current:
            self._up(min(desired, max(2 * current, current + 4)) - current)
        else:
            self._down(current - max(wish for _, wish in self._wishes))
        world.events.after(SYNC_SECONDS, self._sync)

    def _up(self, count: int) -> None:
        self.scaled.ups += 1
        self._turn(1)
        kept = min(count, self._unwanted)
        self._unwanted -= kept
        for _ in range(count - kept):
            self._starting += 1
            self._world.events.after(self._start_seconds, self._started)

    def _started(self) -> None:
        self._starting -= 1
        if self._unwanted:
            self._unwanted -= 1
        else:
            self._world.add_engine()

    def _down(self, count: int) -> None:
        if count <= 0:
            return
        self.scaled.downs += 1
        self._turn(-1)
        unstarted = min(count, self._starting - self._unwanted)
        self._unwanted += unstarted
        # Kubernetes prefers the newest; their caches are the coldest.
        newest = sorted(self._world.ready(), key=lambda e: -e.since)[: count - unstarted]
        for engine in newest:
            self._world.drain_engine(engine.address)

    def _turn(self, direction: int) -> None:
        self.scaled.turns += direction == -self._direction
        self._direction = direction


def by_demand(world: World, target: float = TARGET) -> float:
    """The recommended signal: production's formula over what engines have and what waits."""
    batch = world.options.model.batch
    return demand(world.loads(), len(world.queue), batch) / target


def by_cpu(world: World) -> float:
    """CPU at 70 %, as engines show it: the loop that feeds a GPU is busy while anything runs.

    Half a core as soon as one request runs, the rest in proportion to the batch.
    """
    ready = world.ready()
    used = sum(0.5 + 0.5 * e.running / e.model.batch if e.running else 0.02 for e in ready)
    return used / 0.7


def by_waiting(world: World) -> float:
    """Requests that wait, at their doors and in the queue: four a replica."""
    waiting = sum(load.waiting for load in world.loads()) + len(world.queue)
    return waiting / 4
