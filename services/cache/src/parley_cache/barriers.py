"""What keeps an invalidated answer from coming back.

An answer can be on its way into the cache while it is being invalidated: its
Store then arrives after the Invalidate that was meant for it. Each Invalidate
therefore leaves a *barrier* before it removes anything, and a Store, in the
transaction that writes the entry, is refused by any barrier that covers it.

- A barrier that names a chat or a message is **absolute**: ids are never used
  again, so every later Store from that source is refused until the barrier
  expires (`tombstone_seconds`; keep it above the longest time between a run's
  deletion and the last retry of its Store).
- A barrier on a user, a model or the whole tenant refuses what was **begun
  before it**. Lookup hands out a *stamp* (the tenant's epoch and invalidation
  count); a Store that carries it is refused when it is older than a barrier
  that covers it. A Store without a stamp cannot show its age, and is refused
  while such a barrier stands (`barrier_seconds`; keep it above the longest
  run).

Losing the store's memory of barriers (a Redis that evicted or forgot them)
loses the epoch with them, since both live in one key: entries of a lost epoch
are never served again. A Redis restored from an old snapshot is the exception,
as it brings entries back and forgets their barriers: give the cache a Redis
that does not persist, or flush it after a restore. The caller's check of the
source message holds in every case.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from parley_cache.keys import SourceNames, name_digest, source_names
from parley_cache.model import Selector, Sources

ALL = "all"
_UNBEGUN = "-"


@dataclass(frozen=True, slots=True)
class Barrier:
    """One invalidation, as Store meets it."""

    absolute: bool
    sequence: int
    expires_at: float


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a caller looked: the tenant's epoch (None: it had none) and count."""

    epoch: str | None
    sequence: int

    def encode(self) -> str:
        """Write it as the wire carries it."""
        return f"{self.epoch or _UNBEGUN}.{self.sequence}"

    @staticmethod
    def decode(text: str) -> Stamp | None:
        """Read it back; None when there is none, or none that can be read."""
        epoch, dot, sequence = text.partition(".")
        if not dot or not epoch or not sequence.isascii() or not sequence.isdigit():
            return None
        return Stamp(None if epoch == _UNBEGUN else epoch, int(sequence[:18]))


def _combine(names: Iterable[tuple[str, str]]) -> str:
    return name_digest("barrier", " ".join(f"{kind}={name}" for kind, name in names))


def _named(sources: SourceNames) -> list[tuple[str, str]]:
    return [
        ("chat", sources.chat),
        ("message", sources.message),
        ("user", sources.user),
        ("model", sources.model),
    ]


def barrier_of(selector: Selector) -> tuple[str, bool]:
    """Name the barrier that a selector leaves, and whether it is absolute."""
    if selector.all:
        return ALL, False
    names = source_names(
        Sources(selector.chat_id, selector.message_id, selector.user, selector.model)
    )
    given = {
        "chat": selector.chat_id,
        "message": selector.message_id,
        "user": selector.user,
        "model": selector.model,
    }
    chosen = [(kind, name) for kind, name in _named(names) if given[kind]]
    return _combine(chosen), bool(selector.chat_id or selector.message_id)


def covering(sources: SourceNames) -> list[str]:
    """Name every barrier that would cover an entry: 15 combinations and `all`."""
    pairs = _named(sources)
    names = [
        _combine(chosen)
        for size in range(1, len(pairs) + 1)
        for chosen in itertools.combinations(pairs, size)
    ]
    return [*names, ALL]


def refuses(
    barriers: Iterable[Barrier], *, epoch: str | None, stamp: Stamp | None, now: float
) -> bool:
    """Say whether a Store must be refused.

    Args:
        barriers: those of the tenant that cover the entry.
        epoch: the tenant's epoch now; None when it has none yet.
        stamp: what the Store carries.
        now: Unix seconds.
    """
    if stamp is not None and stamp.epoch is not None and stamp.epoch != epoch:
        return True
    for barrier in barriers:
        if barrier.expires_at <= now:
            continue
        if barrier.absolute or stamp is None or stamp.sequence < barrier.sequence:
            return True
    return False
