"""How much work there is, in engines: the signal to scale a fleet by. Pure.

The sum of what engines have and of what waits for them, each in proportion to what an engine
batches or to what its KV cache holds, whichever is scarcer. It does not depend on how many
engines there are, or are starting: a new one takes work over, and changes nothing. Divided by
the share to which engines should be filled, it is the number of engines to have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# The recommended share to which engines are filled: what is left takes a burst until a new
# engine has started.
TARGET = 0.7
# What an engine batches where none was ever seen.
UNKNOWN_CAPACITY = 8


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What one engine has: requests, requests that it batches, share of its KV cache in use."""

    running: int
    waiting: int
    capacity: int
    kv_used_share: float = 0.0


def demand(loads: Sequence[EngineLoad], queued: int = 0, capacity: int = 0) -> float:
    """Return the work in engines; `queued`: requests that wait before the engines.

    `capacity`: what an engine batches, for when there is none to ask.
    """
    if loads:
        capacity = sum(load.capacity for load in loads) // len(loads)
    capacity = capacity or UNKNOWN_CAPACITY
    running = sum(load.running for load in loads)
    waiting = sum(load.waiting for load in loads) + queued
    places = sum((load.running + load.waiting) / max(1, load.capacity) for load in loads)
    cache = sum(load.kv_used_share for load in loads)
    # Those that wait will need what those that run have.
    cache += waiting * cache / running if running else 0.0
    return max(places + queued / capacity, cache)
