"""Which engine a request goes to. Pure: no I/O, no clock; the simulation imports this module.

Three strategies, switchable by a setting:

- `affinity`: the engine that drew this chat's last answer, whose prefix cache is warm; else
  the one that the chat hashes to (rendezvous hashing, so that an engine that comes or goes
  moves only its own chats and all session replicas agree); each only within its bound.
  Bounded loads: Mirrokni, Thorup, Zadimoghaddam 2017, the ring exchanged for highest random
  weight, and with a floor, below which a batch is so empty that evenness buys nothing.
- `least_loaded`: of two engines drawn by chance the one with less requests for what it
  batches. Loads are known as they were a moment ago, so whoever looks at all of them goes
  where all others go (Mitzenmacher 2000, "How Useful Is Old Information?").
- `round_robin`: one after the other, in proportion to what they batch.

A choice costs one pass over the candidates, 0.4 µs each at the most.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b

# An engine may have this much more than its share of the load,
LOAD_FACTOR = 1.25
# and up to this share of its batch in any case.
FLOOR = 0.25
# What an engine is given at a time, in terms of what it batches: the next ones are there when
# one ends, without a way to the queue.
FEED = 1.25
# Chats whose engine is remembered; the one that was quiet for longest is forgotten first.
MEMORY = 65_536

_MASK = (1 << 64) - 1


class Strategy(StrEnum):
    """How an engine is chosen."""

    AFFINITY = "affinity"
    LEAST_LOADED = "least_loaded"
    ROUND_ROBIN = "round_robin"


class Why(StrEnum):
    """What a choice was made for."""

    WARM = "warm"
    PREFERRED = "preferred"
    OVERFLOW = "overflow"
    LEAST_LOADED = "least_loaded"
    IN_TURN = "in_turn"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine that can take the request."""

    address: str
    # Requests that it has: in its batch, waiting, or on their way.
    load: int
    # Requests that it batches at most.
    capacity: int
    # Its share of what it would get, in (0, 1]: less than 1 while it starts slowly.
    weight: float = 1.0
    # Changes when its process does, and its cache is empty again.
    incarnation: str = ""

    @property
    def worth(self) -> float:
        """Requests that it should batch now."""
        return max(1, self.capacity) * self.weight


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine chosen, and why."""

    address: str
    why: Why


def room(capacity: int, load: int) -> int:
    """Return how many more requests an engine is given now."""
    return max(0, math.ceil(capacity * FEED) - load)


def ramp(age: float, seconds: float) -> float:
    """Return the weight of an engine that has been there for `age` seconds: slow start."""
    return 1.0 if age >= seconds else max(0.1, age / seconds)


class Chooser:
    """Chooses engines for the requests of one replica; remembers where chats are warm."""

    def __init__(
        self,
        strategy: Strategy = Strategy.AFFINITY,
        *,
        load_factor: float = LOAD_FACTOR,
        floor: float = FLOOR,
        memory: int = MEMORY,
        rng: random.Random | None = None,
    ) -> None:
        self.strategy = strategy
        self._load_factor = load_factor
        self._floor = floor
        self._memory = memory
        self._rng = rng or random.Random()  # noqa: S311 - ties, no secrets
        self._warm: OrderedDict[str, tuple[str, str]] = OrderedDict()
        # What engines have in hand for their next turn (smooth weighted round robin).
        self._turns: dict[str, float] = {}

    def choose(self, key: str, candidates: Sequence[Candidate]) -> Choice | None:
        """Choose an engine for a request of `key` (a chat); None: there is no candidate."""
        if not candidates:
            return None
        top = max(c.weight for c in candidates)
        if top < 1:
            # All of them are new: then none is, as this replica may have started just now.
            candidates = [replace(c, weight=c.weight / top) for c in candidates]
        if self.strategy is Strategy.ROUND_ROBIN:
            return Choice(self._next_in_turn(candidates), Why.IN_TURN)
        if self.strategy is Strategy.LEAST_LOADED:
            return Choice(self._least_loaded(candidates), Why.LEAST_LOADED)
        return self._by_affinity(key, candidates)

    def drawn(self, key: str, address: str, incarnation: str) -> None:
        """Remember that the engine has the prompt of `key` in its cache now."""
        if self.strategy is not Strategy.AFFINITY:
            return
        self._warm[key] = (address, incarnation)
        self._warm.move_to_end(key)
        if len(self._warm) > self._memory:
            self._warm.popitem(last=False)

    def _by_affinity(self, key: str, candidates: Sequence[Candidate]) -> Choice:
        total_load, total_worth, some_room = 1, 0.0, False
        for candidate in candidates:
            worth = candidate.worth
            total_load += candidate.load
            total_worth += worth
            # While some batch has room, none is queued for.
            some_room = some_room or candidate.load < worth

        def takes(candidate: Candidate) -> bool:
            if some_room and candidate.load >= candidate.worth:
                return False
            share = candidate.worth / total_worth
            bound = math.ceil(self._load_factor * total_load * share)
            return candidate.load < max(bound, self._floor * candidate.worth)

        warm = self._warm.get(key)
        if warm is not None:
            for candidate in candidates:
                if (candidate.address, candidate.incarnation) == warm and takes(candidate):
                    return Choice(candidate.address, Why.WARM)
        hashed = _hash(key)
        preferred = max(candidates, key=lambda c: _mix(hashed, c.address))
        if takes(preferred):
            return Choice(preferred.address, Why.PREFERRED)
        able = [c for c in candidates if takes(c)]
        if able:
            # The same one for the same chat, as long as it can.
            overflow = max(able, key=lambda c: _mix(hashed, c.address)).address
        else:
            overflow = self._least_loaded(candidates)
        return Choice(overflow, Why.OVERFLOW)

    def _least_loaded(self, candidates: Sequence[Candidate]) -> str:
        # While some batch has room, none is queued for.
        able = [c for c in candidates if c.load < c.worth] or candidates
        drawn = self._rng.sample(able, min(2, len(able)))
        return min(drawn, key=lambda c: (c.load + 1) / c.worth).address

    def _next_in_turn(self, candidates: Sequence[Candidate]) -> str:
        turns = {c.address: self._turns.get(c.address, 0.0) + c.worth for c in candidates}
        address = max(turns, key=turns.__getitem__)
        turns[address] -= sum(c.worth for c in candidates)
        self._turns = turns
        return address


def _mix(hashed: int, address: str) -> int:
    """Return the weight of an engine for a key; the finalizer of SplitMix64."""
    x = hashed ^ _hash(address)
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


@lru_cache(maxsize=8192)
def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
