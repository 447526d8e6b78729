"""Which engine a request goes to: the one whose prefix cache is warm, unless it is busy.

Rendezvous hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2017, with the
ring exchanged for highest random weight): a key prefers the same engine as long as that
one's load is within a factor of the mean; engines that come or go move only their own
keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

# An engine may have this much more than its share of the load.
LOAD_FACTOR = 1.25


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine that can take the request."""

    address: str
    # Requests that it has: in its batch, waiting, or on their way.
    load: int
    # Requests that it batches at most.
    capacity: int


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine chosen; `preferred`: the one that the key hashes to."""

    address: str
    preferred: bool


def choose(key: str, candidates: Sequence[Candidate]) -> Choice | None:
    """Choose an engine for a request of `key`; None: there is no candidate."""
    if not candidates:
        return None
    by_preference = sorted(candidates, key=lambda c: _weight(key, c.address), reverse=True)
    total_load = sum(c.load for c in candidates) + 1
    total_capacity = sum(max(1, c.capacity) for c in candidates)
    for rank, candidate in enumerate(by_preference):
        share = max(1, candidate.capacity) / total_capacity
        if candidate.load < math.ceil(LOAD_FACTOR * total_load * share):
            return Choice(candidate.address, preferred=rank == 0)
    # Unreachable by arithmetic, as the bounds add up to more than the load; but a
    # request must not fail for a rounding.
    least = min(candidates, key=lambda c: c.load / max(1, c.capacity))
    return Choice(least.address, preferred=False)


def _weight(key: str, address: str) -> bytes:
    return blake2b(f"{key}\x00{address}".encode(), digest_size=8).digest()
