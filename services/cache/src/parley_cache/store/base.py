"""What the cache promises of its store, apart from the code that keeps it.

`memory.MemoryStore` and `redis.RedisStore` keep the same promises; one
conformance suite runs against both.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from parley_cache.barriers import Stamp
from parley_cache.keys import EntryKey
from parley_cache.model import Credit, Entry, Meaning, Recalled, Selector, Sources, Totals

ENTRY_OVERHEAD_BYTES = 1792
"""Reckoned for an entry's keys and index members, beside its record.

Checked against a real server's `used_memory` by a test.
"""


MAX_BARS = 16
"""Rated-down questions remembered a space; the oldest makes room."""
BAR_SECONDS = 86_400.0
"""For how long, after the last one."""
MAX_ANNOUNCED = 64
"""Questions that are being answered, remembered a space; one more is not announced."""

ASKED_SECONDS = 7 * 86_400.0
FLAG_SECONDS = 30 * 86_400.0


class StoreError(Exception):
    """The store cannot do what it was asked to.

    StoreError
    ├── StoreUnavailable   away, unreachable or not answering in time
    └── StoreFull          no room, and none could be made
    """


class StoreUnavailable(StoreError):
    """The store is away, or did not answer in time."""


class StoreFull(StoreError):
    """There is no room for the entry, and none could be made."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be kept.

    Args:
        max_bytes, max_entries: of all tenants together.
        tenant_bytes, tenant_entries: of any one tenant.
    """

    max_bytes: int
    max_entries: int
    tenant_bytes: int
    tenant_entries: int

    def exceeded_by_tenant(self, totals: Totals) -> bool:
        """Say whether a tenant holds more than its share."""
        return totals.bytes > self.tenant_bytes or totals.entries > self.tenant_entries

    def exceeded(self, totals: Totals) -> bool:
        """Say whether all tenants together hold too much."""
        return totals.bytes > self.max_bytes or totals.entries > self.max_entries


@dataclass(frozen=True, slots=True)
class BarrierLives:
    """Seconds for which barriers stand: see `barriers`."""

    tombstone_seconds: float
    barrier_seconds: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up found.

    `entry` is set on a hit; else `reason` says why not: `not_found`,
    `expired`, `corrupt` (deleted) or `collision` (never served).
    """

    entry: Entry | None
    reason: str
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Put:
    """What became of an offered entry; `invalidated`: a barrier covers it."""

    stored: bool
    reason: str = ""
    evicted: int = 0


@dataclass(frozen=True, slots=True)
class Swept:
    """What a round of upkeep did, and what all tenants hold after it."""

    totals: Totals
    tenants: int
    expired: int
    evicted: int
    purged: int
    """Entries of invalidated epochs whose memory was given back."""


@dataclass(frozen=True, slots=True)
class Removed:
    """An entry that left; an empty `space` and id: all of the tenant's."""

    tenant: str
    space: str
    entry_id: str


RemovalListener = Callable[[Sequence[Removed]], None]


class Lease(enum.Enum):
    """What asking for a lease came to."""

    TAKEN = "taken"
    HELD = "held"
    """By another, who makes the answer."""
    OPEN = "open"
    """Nobody is to wait: an answer was just made and not kept."""


class CacheStore(Protocol):
    """Entries by key, with sources to remove them by.

    Every method may raise `StoreUnavailable`. `tenant` is a `keys.tenant_name`.
    """

    async def get(self, key: EntryKey) -> Found:
        """Read an entry, and the stamp of this moment, in one step.

        An entry is given only if it has not expired, is whole, and belongs to
        `key`. Reading never renews.
        """
        ...

    async def put(
        self,
        key: EntryKey,
        entry: Entry,
        sources: Sources,
        stamp: Stamp | None,
        meaning: Meaning | None = None,
    ) -> Put:
        """Write an entry over any of the same key, unless a barrier covers it.

        The check of the barriers and the writing are one transaction. Makes
        room within the tenant's share by removing what is worth least: see `worth`.

        Raises:
            StoreFull: no room, and none could be made.
        """
        ...

    async def invalidate(self, tenant: str, selector: Selector, *, dry_run: bool) -> int:
        """Remove what matches and leave a barrier; give the number of entries.

        When it returns, no later `get` gives any of them, and no `put` begun
        before it brings one back. Repeatable: a call that failed half-way is
        finished by the next one. With `dry_run` it only counts.
        """
        ...

    def listen(self, listener: RemovalListener) -> None:
        """Have one told, without waiting, of entries with a meaning that leave."""
        ...

    async def recall(self, tenant: str, ids: Sequence[str]) -> Sequence[Recalled | None]:
        """Read entries and meanings of the tenant's epoch in one step, in the order of `ids`.

        None: gone, expired, damaged, of another name, or without a meaning.
        """
        ...

    async def note_asker(self, key: EntryKey, user: str) -> int:
        """Count one who asked, for `ASKED_SECONDS`; give how many different ones did.

        `user`: a `keys.user_name`.
        """
        ...

    async def flag_sharers(self, tenant: str, selector: Selector) -> int:
        """Flag those whose questions made what matches and is shared; give how many."""
        ...

    async def is_flagged(self, tenant: str, user: str) -> bool:
        """Say whether a user's answers are not to be shared: for `FLAG_SECONDS`."""
        ...

    async def take_lease(self, key: EntryKey, token: str, seconds: float) -> tuple[Lease, Found]:
        """Take the single-flight lease of a key, unless another holds it; then read as `get`.

        What was stored before the lease was taken is found, and that in one round trip.
        """
        ...

    async def end_lease(self, key: EntryKey, token: str, *, open_seconds: float) -> None:
        """Give a lease back; that of another token stays.

        With `open_seconds` it is `OPEN` for so long, so that nobody waits in vain.
        """
        ...

    async def renew_lease(self, key: EntryKey, token: str, seconds: float) -> bool:
        """Let a lease stand for so long from now on. False: `token` does not hold it."""
        ...

    async def peek_lease(self, key: EntryKey) -> Lease | None:
        """Say whether a lease is `HELD` or `OPEN`; None: neither."""
        ...

    async def announce(
        self, tenant: str, space: str, token: str, record: bytes, seconds: float
    ) -> Sequence[bytes]:
        """Leave a record in a space for so long; give those that were left before, in one step.

        The earliest is given first, as far as the replicas' clocks agree. Where
        `MAX_ANNOUNCED` stand already, it is not left.
        """
        ...

    async def prolong(self, tenant: str, space: str, token: str, seconds: float) -> None:
        """Let a record stand for so long from now on; one that is gone stays gone."""
        ...

    async def withdraw(self, tenant: str, space: str, token: str) -> None:
        """Take a record back."""
        ...

    async def raise_bars(self, tenant: str, selector: Selector) -> None:
        """Remember, for a while, the vectors of what matches: answers that were rated down.

        Call it before they are removed. At most `MAX_BARS` are kept a space.
        """
        ...

    async def bars(self, tenant: str, space: str) -> Sequence[bytes]:
        """Give the vectors that `raise_bars` left in a space."""
        ...

    async def credit(self, credits: Sequence[Credit]) -> None:
        """Count hits for entries' worth; those that are gone are passed over."""
        ...

    async def tenants(self) -> Mapping[str, int]:
        """Name the tenants that hold entries, with how many, about."""
        ...

    def ids(self, tenant: str) -> AsyncIterator[Sequence[str]]:
        """Page through the ids of a tenant's entries that have not expired."""
        ...

    async def meanings(self, tenant: str, ids: Sequence[str]) -> Mapping[str, Meaning]:
        """Read meanings by id; those that are not there or damaged are left out."""
        ...

    async def totals(self, tenant: str) -> Totals:
        """Count a tenant's entries and bytes (expired ones not yet swept apart)."""
        ...

    async def sweep(self) -> Swept:
        """Do a bounded round of upkeep: forget what expired, keep the bounds.

        Safe to run on many replicas at once; nothing depends on it for
        correctness.
        """
        ...

    async def ping(self) -> None:
        """Return when the store answers."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...
