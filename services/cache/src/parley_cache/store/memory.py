"""The in-memory twin of the Redis store: the same promises, in one process.

It is what unit tests run on, and the reference that the conformance suite
compares Redis with. It keeps records encoded, so that corruption can be tried
on it as well.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from parley_cache.barriers import Barrier, Stamp, barrier_of, covering, refuses
from parley_cache.keys import EntryKey, SourceNames, source_names
from parley_cache.model import Credit, Entry, Meaning, Recalled, Selector, Sources, Totals
from parley_cache.record import (
    CorruptRecord,
    decode_entry,
    decode_meaning,
    encode_entry,
    encode_meaning,
)
from parley_cache.store.base import (
    ASKED_SECONDS,
    BAR_SECONDS,
    ENTRY_OVERHEAD_BYTES,
    FLAG_SECONDS,
    MAX_ANNOUNCED,
    MAX_BARS,
    BarrierLives,
    Found,
    Lease,
    Limits,
    Put,
    RemovalListener,
    Removed,
    StoreFull,
    Swept,
)
from parley_cache.store.worth import first_score, score_after


@dataclass(slots=True)
class _Held:
    blob: bytes
    beside: bytes
    space: str
    names: SourceNames
    expires_at: float
    score: float = 0.0

    @property
    def size(self) -> int:
        return len(self.blob) + len(self.beside) + ENTRY_OVERHEAD_BYTES


@dataclass(slots=True)
class _Tenant:
    epoch: str | None = None
    sequence: int = 0
    barriers: dict[str, Barrier] = field(default_factory=dict)
    entries: dict[str, _Held] = field(default_factory=dict)
    askers: dict[str, dict[str, float]] = field(default_factory=dict)
    flags: dict[str, float] = field(default_factory=dict)
    leases: dict[str, tuple[str, float]] = field(default_factory=dict)
    announced: dict[str, dict[str, tuple[bytes, float]]] = field(default_factory=dict)
    bars: dict[str, list[tuple[bytes, float]]] = field(default_factory=dict)


class MemoryStore:
    """A `CacheStore` in this process.

    Args:
        limits: bounds on what is kept.
        lives: how long barriers stand.
        clock: Unix seconds.
    """

    def __init__(
        self, limits: Limits, lives: BarrierLives, clock: Callable[[], float] = time.time
    ) -> None:
        self._limits = limits
        self._lives = lives
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        self._listener: RemovalListener | None = None

    async def get(self, key: EntryKey) -> Found:
        """Read an entry, and the stamp of this moment."""
        tenant = self._tenants.get(key.tenant) or _Tenant()
        stamp = Stamp(tenant.epoch, tenant.sequence)
        held = tenant.entries.get(key.entry_id)
        if held is None:
            return Found(None, "not_found", stamp)
        try:
            entry = decode_entry(held.blob)
        except CorruptRecord:
            del tenant.entries[key.entry_id]
            return Found(None, "corrupt", stamp)
        if entry.check != key.check or entry.entry_id != key.entry_id:
            return Found(None, "collision", stamp)
        if entry.expires_at <= self._clock():
            return Found(None, "expired", stamp)
        return Found(entry, "", stamp)

    async def put(
        self,
        key: EntryKey,
        entry: Entry,
        sources: Sources,
        stamp: Stamp | None,
        meaning: Meaning | None = None,
    ) -> Put:
        """Write an entry unless a barrier covers it."""
        tenant = self._tenants.setdefault(key.tenant, _Tenant())
        names = source_names(sources)
        standing = [tenant.barriers[name] for name in covering(names) if name in tenant.barriers]
        if refuses(standing, epoch=tenant.epoch, stamp=stamp, now=self._clock()):
            return Put(False, "invalidated")
        held = _Held(
            encode_entry(entry),
            encode_meaning(meaning) if meaning is not None else b"",
            meaning.space if meaning is not None else "",
            names,
            entry.expires_at,
        )
        held.score = first_score(self._clock(), entry.completion_tokens, held.size)
        if held.size > min(self._limits.tenant_bytes, self._limits.max_bytes):
            raise StoreFull("the entry is larger than the tenant's share")
        tenant.epoch = tenant.epoch or secrets.token_hex(8)
        tenant.entries[key.entry_id] = held
        evicted = 0
        while self._limits.exceeded_by_tenant(self._totals(tenant)) or (
            self._limits.exceeded(self._sum())
        ):
            # The new entry goes last, whatever its worth.
            others = [name for name in tenant.entries if name != key.entry_id]
            if not others:
                break
            self._remove(key.tenant, tenant, min(others, key=self._order(tenant)))
            evicted += 1
        return Put(True, "", evicted)

    async def invalidate(self, tenant: str, selector: Selector, *, dry_run: bool) -> int:
        """Remove what matches and leave a barrier."""
        state = self._tenants.setdefault(tenant, _Tenant())
        matching = self._matching(state, selector)
        if dry_run:
            return len(matching)
        name, absolute = barrier_of(selector)
        lives = self._lives
        life = lives.tombstone_seconds if absolute else lives.barrier_seconds
        state.sequence += 1
        state.barriers[name] = Barrier(absolute, state.sequence, self._clock() + life)
        if selector.all:
            state.epoch = secrets.token_hex(8)
            self._tell([Removed(tenant, "", "")])
        for entry_id in matching:
            self._remove(tenant, state, entry_id)
        return len(matching)

    def listen(self, listener: RemovalListener) -> None:
        """Have one told of entries with a meaning that leave."""
        self._listener = listener

    async def recall(self, tenant: str, ids: Sequence[str]) -> Sequence[Recalled | None]:
        """Read nominated entries."""
        state = self._tenants.get(tenant) or _Tenant()
        return [self._recalled(entry_id, state.entries.get(entry_id)) for entry_id in ids]

    def _recalled(self, entry_id: str, held: _Held | None) -> Recalled | None:
        if held is None or held.expires_at <= self._clock():
            return None
        try:
            found = Recalled(decode_entry(held.blob), decode_meaning(held.beside))
        except CorruptRecord:
            return None
        return found if found.entry.entry_id == entry_id else None

    async def note_asker(self, key: EntryKey, user: str) -> int:
        """Count one who asked."""
        state = self._tenants.setdefault(key.tenant, _Tenant())
        askers = state.askers.setdefault(key.entry_id, {})
        now = self._clock()
        askers[user] = now + ASKED_SECONDS
        return sum(until > now for until in askers.values())

    async def flag_sharers(self, tenant: str, selector: Selector) -> int:
        """Flag those who share what matches."""
        state = self._tenants.get(tenant) or _Tenant()
        users: set[str] = set()
        for entry_id in [] if selector.all else self._matching(state, selector):
            try:
                users.add(decode_entry(state.entries[entry_id].blob).shared_by)
            except CorruptRecord:
                continue
        users.discard("")
        state.flags.update(dict.fromkeys(users, self._clock() + FLAG_SECONDS))
        return len(users)

    async def is_flagged(self, tenant: str, user: str) -> bool:
        """Say whether a user is flagged."""
        state = self._tenants.get(tenant) or _Tenant()
        return state.flags.get(user, 0.0) > self._clock()

    async def take_lease(self, key: EntryKey, token: str, seconds: float) -> tuple[Lease, Found]:
        """Take the lease of a key, unless another holds it; then read the entry."""
        leases = self._tenants.setdefault(key.tenant, _Tenant()).leases
        held, until = leases.get(key.entry_id, ("", 0.0))
        lease = Lease.HELD if held else Lease.OPEN
        if until <= self._clock():
            leases[key.entry_id] = (token, self._clock() + seconds)
            lease = Lease.TAKEN
        return lease, await self.get(key)

    async def end_lease(self, key: EntryKey, token: str, *, open_seconds: float) -> None:
        """Give a lease back."""
        leases = self._tenants.setdefault(key.tenant, _Tenant()).leases
        held, until = leases.get(key.entry_id, ("", 0.0))
        if held == token and until > self._clock():
            leases[key.entry_id] = ("", self._clock() + open_seconds)

    async def renew_lease(self, key: EntryKey, token: str, seconds: float) -> bool:
        """Let a lease stand for so long from now on."""
        leases = self._tenants.setdefault(key.tenant, _Tenant()).leases
        held, until = leases.get(key.entry_id, ("", 0.0))
        if held != token or until <= self._clock():
            return False
        leases[key.entry_id] = (token, self._clock() + seconds)
        return True

    async def peek_lease(self, key: EntryKey) -> Lease | None:
        """Say whether a lease is held or open."""
        leases = self._tenants.setdefault(key.tenant, _Tenant()).leases
        held, until = leases.get(key.entry_id, ("", 0.0))
        if until <= self._clock():
            return None
        return Lease.HELD if held else Lease.OPEN

    async def announce(
        self, tenant: str, space: str, token: str, record: bytes, seconds: float
    ) -> Sequence[bytes]:
        """Leave a record in a space; give those that were left before."""
        announced = self._tenants.setdefault(tenant, _Tenant()).announced
        now = self._clock()
        held = {t: r for t, r in announced.get(space, {}).items() if r[1] > now and t != token}
        others = [one for one, _ in held.values()]
        if len(held) < MAX_ANNOUNCED:
            held[token] = (record, now + seconds)
        announced[space] = held
        return others

    async def prolong(self, tenant: str, space: str, token: str, seconds: float) -> None:
        """Let a record stand for so long from now on."""
        held = self._tenants.setdefault(tenant, _Tenant()).announced.get(space, {})
        if token in held:
            held[token] = (held[token][0], self._clock() + seconds)

    async def withdraw(self, tenant: str, space: str, token: str) -> None:
        """Take a record back."""
        self._tenants.setdefault(tenant, _Tenant()).announced.get(space, {}).pop(token, None)

    async def raise_bars(self, tenant: str, selector: Selector) -> None:
        """Remember the vectors of what matches."""
        state = self._tenants.get(tenant) or _Tenant()
        ids = [] if selector.all else self._matching(state, selector)
        for meaning in (await self.meanings(tenant, ids)).values():
            bars = state.bars.setdefault(meaning.space, [])
            bars.append((meaning.vector, self._clock() + BAR_SECONDS))
            del bars[:-MAX_BARS]

    async def bars(self, tenant: str, space: str) -> Sequence[bytes]:
        """Give the vectors of what was rated down in a space."""
        state = self._tenants.get(tenant) or _Tenant()
        now = self._clock()
        return [vector for vector, until in state.bars.get(space, []) if until > now]

    async def credit(self, credits: Sequence[Credit]) -> None:
        """Count hits for entries' worth."""
        for credit in credits:
            state = self._tenants.get(credit.tenant) or _Tenant()
            held = state.entries.get(credit.entry_id)
            if held is not None:
                held.score = score_after(
                    held.score, self._clock(), credit.tokens, held.size, credit.hits
                )

    async def tenants(self) -> Mapping[str, int]:
        """Name the tenants that hold entries."""
        return {name: len(state.entries) for name, state in self._tenants.items() if state.entries}

    async def ids(self, tenant: str) -> AsyncIterator[Sequence[str]]:
        """Give the ids of a tenant's entries, as one page."""
        now = self._clock()
        state = self._tenants.get(tenant) or _Tenant()
        yield [name for name, held in state.entries.items() if held.expires_at > now]

    async def meanings(self, tenant: str, ids: Sequence[str]) -> Mapping[str, Meaning]:
        """Read meanings by id."""
        found: dict[str, Meaning] = {}
        state = self._tenants.get(tenant) or _Tenant()
        for entry_id in ids:
            held = state.entries.get(entry_id)
            if held is None or not held.beside:
                continue
            try:
                found[entry_id] = decode_meaning(held.beside)
            except CorruptRecord:
                continue
        return found

    def _order(self, state: _Tenant) -> Callable[[str], tuple[bool, float]]:
        """In which order entries go: those that expired first, then by worth."""
        now = self._clock()

        def order(name: str) -> tuple[bool, float]:
            held = state.entries[name]
            return (held.expires_at > now, held.score)

        return order

    def _remove(self, tenant: str, state: _Tenant, entry_id: str) -> None:
        held = state.entries.pop(entry_id)
        if held.space:
            self._tell([Removed(tenant, held.space, entry_id)])

    def _tell(self, removed: Sequence[Removed]) -> None:
        if self._listener is not None:
            self._listener(removed)

    async def totals(self, tenant: str) -> Totals:
        """Count a tenant's entries and bytes."""
        return self._totals(self._tenants.get(tenant) or _Tenant())

    async def sweep(self) -> Swept:
        """Forget what expired; keep the bounds."""
        now = self._clock()
        expired = evicted = 0
        for tenant_name, tenant in self._tenants.items():
            for entry_id in [
                name for name, held in tenant.entries.items() if held.expires_at <= now
            ]:
                self._remove(tenant_name, tenant, entry_id)
                expired += 1
            for name in [n for n, b in tenant.barriers.items() if b.expires_at <= now]:
                del tenant.barriers[name]
        while self._limits.exceeded(self._sum()):
            named = max(self._tenants, key=lambda name: self._totals(self._tenants[name]).bytes)
            largest = self._tenants[named]
            self._remove(named, largest, min(largest.entries, key=self._order(largest)))
            evicted += 1
        held_by = [tenant for tenant in self._tenants.values() if tenant.entries]
        return Swept(self._sum(), len(held_by), expired, evicted, 0)

    async def ping(self) -> None:
        """Return at once."""

    async def close(self) -> None:
        """Nothing to give back."""

    def _matching(self, tenant: _Tenant, selector: Selector) -> list[str]:
        now = self._clock()
        wanted = source_names(
            Sources(selector.chat_id, selector.message_id, selector.user, selector.model)
        )

        def matches(names: SourceNames) -> bool:
            return (
                (not selector.chat_id or names.chat == wanted.chat)
                and (not selector.message_id or names.message == wanted.message)
                and (not selector.user or names.user == wanted.user)
                and (not selector.model or names.model == wanted.model)
            )

        return [
            entry_id
            for entry_id, held in tenant.entries.items()
            if held.expires_at > now and (selector.all or matches(held.names))
        ]

    def _totals(self, tenant: _Tenant) -> Totals:
        now = self._clock()
        return _sum(
            Totals(1, held.size) for held in tenant.entries.values() if held.expires_at > now
        )

    def _sum(self) -> Totals:
        return _sum(self._totals(tenant) for tenant in self._tenants.values())


def _sum(parts: Iterable[Totals]) -> Totals:
    entries = total = 0
    for part in parts:
        entries += part.entries
        total += part.bytes
    return Totals(entries, total)
