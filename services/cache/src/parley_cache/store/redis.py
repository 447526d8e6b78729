"""The cache's store in Redis, on plain commands.

Writing and invalidating are optimistic transactions (WATCH, MULTI, EXEC) over
keys of one tenant, which share a slot. A look-up is one round trip: the
tenant's epoch and the record are read together, and a record is only reachable
under the epoch that stands. Names are listed in `redis_keys`.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import OutOfMemoryError, ResponseError

from parley_cache.barriers import Stamp, covering, refuses
from parley_cache.keys import EntryKey, source_names
from parley_cache.model import Credit, Entry, Meaning, Recalled, Selector, Sources, Totals
from parley_cache.record import CorruptRecord, decode_entry, encode_entry, encode_meaning
from parley_cache.store.base import (
    ENTRY_OVERHEAD_BYTES,
    BarrierLives,
    Found,
    Lease,
    Limits,
    Put,
    RemovalListener,
    StoreFull,
    Swept,
)
from parley_cache.store.redis_announcing import RedisAnnouncing
from parley_cache.store.redis_client import Client, Command, translated
from parley_cache.store.redis_invalidation import RedisInvalidation
from parley_cache.store.redis_keys import (
    Bookkeeping,
    EpochKeys,
    TenantKeys,
    barrier_field,
    decode_barrier,
)
from parley_cache.store.redis_lease import RedisLeases
from parley_cache.store.redis_recall import RedisRecall
from parley_cache.store.redis_removal import RedisRemoval
from parley_cache.store.redis_sharing import RedisSharing
from parley_cache.store.redis_sweep import RedisSweep
from parley_cache.store.redis_transaction import (
    DAY,
    HORIZON_MS,
    current_epoch,
    execute,
    renew,
    retrying,
    text,
)
from parley_cache.store.worth import first_score

_GRACE_MS = int(DAY * 1000)
"""How long an entry's bookkeeping outlives it, for sweeps to find."""
_KNOWN_EPOCHS = 4096
_MOST_GIVEN_WAY = 256
"""Entries that one Store removes at most because Redis itself is full."""


class RedisStore:
    """A `CacheStore` in Redis or Valkey, standalone or a cluster's.

    Args:
        client: from `redis_client.open_client`.
        limits: bounds on what is kept. The tenant's are kept by every write;
            those of all tenants by sweeps, and by writes as far as the last
            sweep knew.
        lives: how long barriers stand.
        prefix: of every key.
        max_barriers: barriers of one tenant; beyond them the next invalidation
            is widened to the whole tenant, which needs only one.
        sweep_seconds: for how long one replica's sweep stands for all.
        clock: Unix seconds.
    """

    def __init__(
        self,
        client: Client,
        limits: Limits,
        lives: BarrierLives,
        *,
        prefix: str = "parley:cache",
        max_barriers: int = 50_000,
        sweep_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._limits = limits
        self._prefix = prefix
        self._clock = clock
        self._removal = RedisRemoval(client, prefix, clock)
        self._leases = RedisLeases(client)
        self._announcing = RedisAnnouncing(client, clock)
        self._sharing = RedisSharing(client)
        self._recall = RedisRecall(client, prefix, clock)
        self._sweep = RedisSweep(
            client, prefix, self._removal, limits, clock=clock, sweep_seconds=sweep_seconds
        )
        self._invalidation = RedisInvalidation(
            client, prefix, self._removal, lives, max_barriers=max_barriers, clock=clock
        )
        # Only spares a round trip: a look-up compares it with Redis each time.
        self._epochs: OrderedDict[str, str] = OrderedDict()
        self._all = Totals(0, 0)

    async def get(self, key: EntryKey) -> Found:
        """Read an entry, and the stamp of this moment."""
        with translated():
            _, found = await self._look_up(key)
        return found

    async def _look_up(
        self, key: EntryKey, first: Sequence[Command] = ()
    ) -> tuple[Sequence[Any], Found]:
        """Read an entry after some commands, whose replies are given, in one round trip."""
        names = TenantKeys(self._prefix, key.tenant)
        known = self._epochs.get(key.tenant, "")
        replies, epoch, sequence, record = await self._read(names, known, key.entry_id, first)
        if epoch is not None and epoch != known:
            known = epoch
            self._remember(key.tenant, known)
            _, epoch, sequence, record = await self._read(names, known, key.entry_id)
        stamp = Stamp(epoch, sequence)
        if record is None or epoch != known:
            return replies, Found(None, "not_found", stamp)
        if isinstance(record, bytes):
            with suppress(CorruptRecord):
                return replies, self._judge(key, decode_entry(record), stamp)
        await self._removal.remove(names.epoch(known), [key.entry_id])
        return replies, Found(None, "corrupt", stamp)

    def _judge(self, key: EntryKey, entry: Entry, stamp: Stamp) -> Found:
        if entry.entry_id != key.entry_id or entry.check != key.check:
            return Found(None, "collision", stamp)
        if entry.expires_at <= self._clock():
            return Found(None, "expired", stamp)
        return Found(entry, "", stamp)

    async def _read(
        self, names: TenantKeys, epoch: str, entry_id: str, first: Sequence[Command] = ()
    ) -> tuple[Sequence[Any], str | None, int, bytes | ResponseError | None]:
        """Send some commands, then read epoch, count and record: one round trip.

        A record of the wrong type is given as Redis' error.
        """
        async with self._client.pipeline(transaction=False) as pipe:
            for command in first:
                pipe.execute_command(*command)
            pipe.execute_command("HMGET", names.meta, "epoch", "seq")
            pipe.execute_command("GET", names.epoch(epoch).record(entry_id))
            *replies, meta, record = await pipe.execute(raise_on_error=False)
        for reply in (*replies, meta, record):
            if isinstance(reply, Exception) and not (reply is record and _wrong_type(reply)):
                raise reply
        return replies, text(meta[0]), int(meta[1] or 0), record

    def _remember(self, tenant: str, epoch: str) -> None:
        self._epochs[tenant] = epoch
        self._epochs.move_to_end(tenant)
        while len(self._epochs) > _KNOWN_EPOCHS:
            self._epochs.popitem(last=False)

    async def put(
        self,
        key: EntryKey,
        entry: Entry,
        sources: Sources,
        stamp: Stamp | None,
        meaning: Meaning | None = None,
    ) -> Put:
        """Write an entry unless a barrier covers it."""
        blob = encode_entry(entry)
        beside = encode_meaning(meaning) if meaning is not None else b""
        book = Bookkeeping(
            len(blob) + len(beside) + ENTRY_OVERHEAD_BYTES,
            source_names(sources),
            meaning.space if meaning is not None else "",
        )
        if book.size > min(self._limits.tenant_bytes, self._limits.max_bytes):
            raise StoreFull("the entry is larger than the tenant's share")
        names = TenantKeys(self._prefix, key.tenant)

        def write() -> Awaitable[str | None]:
            return self._write(names, entry, (blob, beside), book, stamp)

        evicted = 0
        with translated():
            while True:
                try:
                    epoch = await retrying(write)
                    break
                except OutOfMemoryError:
                    # Redis is full before the cache is: give back what is needed
                    # and more, so that the cache goes on renewing itself.
                    gone = await self._removal.give_way(names, book.size)
                    evicted += gone
                    if not gone or evicted >= _MOST_GIVEN_WAY:
                        raise
            if epoch is None:
                return Put(False, "invalidated")
            self._remember(key.tenant, epoch)
            evicted += await self._keep_bounds(key, names.epoch(epoch), book.size)
        return Put(True, "", evicted)

    async def _write(
        self,
        names: TenantKeys,
        entry: Entry,
        blobs: tuple[bytes, bytes],
        book: Bookkeeping,
        stamp: Stamp | None,
    ) -> str | None:
        """Try the transaction once; give the epoch, or None: a barrier covers the entry."""
        now = self._clock()
        blob, beside = blobs
        entry_id = entry.entry_id
        expires = int(entry.expires_at * 1000)
        async with self._client.pipeline(transaction=True) as tx:
            await tx.execute_command("WATCH", names.meta)
            raw_epoch, raw_renew, *raw_barriers = await tx.execute_command(
                "HMGET", names.meta, "epoch", "renew", *map(barrier_field, covering(book.names))
            )
            epoch = text(raw_epoch)
            barriers = [decode_barrier(raw) for raw in raw_barriers if raw is not None]
            if refuses(barriers, epoch=epoch, stamp=stamp, now=now):
                return None
            current = epoch or secrets.token_hex(8)
            keys = names.epoch(current)
            await tx.execute_command("WATCH", keys.bookkeeping(entry_id))
            old = Bookkeeping.decode(await tx.execute_command("GET", keys.bookkeeping(entry_id)))
            tx.multi()
            if epoch is None or now > float(raw_renew or 0):
                # Not at every write: each change of it makes other writers try again.
                renew(tx, names, now, "epoch", current)
            if old is not None:
                for index in keys.indices(old.names):
                    tx.execute_command("SREM", index, entry_id)
            tx.execute_command("SET", keys.record(entry_id), blob, "PXAT", expires)
            tx.execute_command(
                "SET", keys.bookkeeping(entry_id), book.encode(), "PXAT", expires + _GRACE_MS
            )
            if beside:
                tx.execute_command("SET", keys.meaning(entry_id), beside, "PXAT", expires)
            else:
                tx.execute_command("UNLINK", keys.meaning(entry_id))
            worth = first_score(now, entry.completion_tokens, book.size)
            tx.execute_command("ZADD", keys.worth, worth, entry_id)
            tx.execute_command("ZADD", keys.expiry, expires, entry_id)
            tx.execute_command("INCRBY", keys.total, book.size - (old.size if old else 0))
            for index in keys.indices(book.names):
                tx.execute_command("SADD", index, entry_id)
            for shared in (keys.expiry, keys.worth, keys.total, *keys.indices(book.names)):
                tx.execute_command("PEXPIRE", shared, HORIZON_MS)
            await execute(tx)
        return current

    async def _keep_bounds(self, key: EntryKey, keys: EpochKeys, size: int) -> int:
        """Make room for what was just written, and note what the tenant holds."""
        totals = await self._removal.measure(keys)
        self._all = Totals(self._all.entries + 1, self._all.bytes + size)
        free_bytes = max(0, totals.bytes - self._limits.tenant_bytes)
        free_entries = max(0, totals.entries - self._limits.tenant_entries)
        if self._limits.exceeded(self._all):
            free_bytes, free_entries = max(free_bytes, size), max(free_entries, 1)
        evicted = 0
        if free_bytes or free_entries:
            evicted = await self._removal.make_room(
                keys, free_bytes=free_bytes, free_entries=free_entries, spare=key.entry_id
            )
            after = await self._removal.measure(keys)
            self._all = Totals(
                max(0, self._all.entries - evicted),
                max(0, self._all.bytes - (totals.bytes - after.bytes)),
            )
            totals = after
        await self._removal.register(key.tenant, totals)
        return evicted

    async def invalidate(self, tenant: str, selector: Selector, *, dry_run: bool) -> int:
        """Remove what matches and leave a barrier."""
        with translated():
            if dry_run:
                return await self._invalidation.count(tenant, selector)
            return await self._invalidation.run(tenant, selector)

    def listen(self, listener: RemovalListener) -> None:
        """Have one told of entries with a meaning that leave."""
        self._removal.listener = listener

    async def recall(self, tenant: str, ids: Sequence[str]) -> Sequence[Recalled | None]:
        """Read nominated entries under the epoch that stands."""
        if not ids:
            return []
        with translated():
            known = self._epochs.get(tenant, "")
            epoch, found = await self._recall.recall(tenant, known, ids)
            if epoch is not None and epoch != known:
                known = epoch
                self._remember(tenant, known)
                epoch, found = await self._recall.recall(tenant, known, ids)
        return found if epoch == known else [None] * len(ids)

    async def note_asker(self, key: EntryKey, user: str) -> int:
        """Count one who asked."""
        with translated():
            names = TenantKeys(self._prefix, key.tenant)
            return await self._sharing.note(names, key.entry_id, user)

    async def flag_sharers(self, tenant: str, selector: Selector) -> int:
        """Flag those who share what matches."""
        names, flagged = TenantKeys(self._prefix, tenant), 0
        with translated():
            async for ids in self._invalidation.matching(names, selector):
                flagged += await self._sharing.flag(names, ids)
        return flagged

    async def is_flagged(self, tenant: str, user: str) -> bool:
        """Say whether a user is flagged."""
        with translated():
            return await self._sharing.is_flagged(TenantKeys(self._prefix, tenant), user)

    async def take_lease(self, key: EntryKey, token: str, seconds: float) -> tuple[Lease, Found]:
        """Take the lease of a key, unless another holds it; then read the entry."""
        with translated():
            name = TenantKeys(self._prefix, key.tenant).lease(key.entry_id)
            taking = self._leases.taking(name, token, seconds)
            replies, found = await self._look_up(key, taking)
        return self._leases.taken(replies, token), found

    async def end_lease(self, key: EntryKey, token: str, *, open_seconds: float) -> None:
        """Give a lease back."""
        with translated():
            name = TenantKeys(self._prefix, key.tenant).lease(key.entry_id)
            await self._leases.end(name, token, open_seconds)

    async def renew_lease(self, key: EntryKey, token: str, seconds: float) -> bool:
        """Let a lease stand for so long from now on."""
        with translated():
            name = TenantKeys(self._prefix, key.tenant).lease(key.entry_id)
            return await self._leases.renew(name, token, seconds)

    async def peek_lease(self, key: EntryKey) -> Lease | None:
        """Say whether a lease is held or open."""
        with translated():
            name = TenantKeys(self._prefix, key.tenant).lease(key.entry_id)
            return await self._leases.peek(name)

    async def announce(
        self, tenant: str, space: str, token: str, record: bytes, seconds: float
    ) -> Sequence[bytes]:
        """Leave a record in a space; give those that were left before."""
        with translated():
            name = TenantKeys(self._prefix, tenant).announced(space)
            return await self._announcing.announce(name, token, record, seconds)

    async def prolong(self, tenant: str, space: str, token: str, seconds: float) -> None:
        """Let a record stand for so long from now on."""
        with translated():
            name = TenantKeys(self._prefix, tenant).announced(space)
            await self._announcing.prolong(name, token, seconds)

    async def withdraw(self, tenant: str, space: str, token: str) -> None:
        """Take a record back."""
        with translated():
            name = TenantKeys(self._prefix, tenant).announced(space)
            await self._announcing.withdraw(name, token)

    async def raise_bars(self, tenant: str, selector: Selector) -> None:
        """Remember the vectors of what matches."""
        names = TenantKeys(self._prefix, tenant)
        with translated():
            async for ids in self._invalidation.matching(names, selector):
                found = await self._recall.meanings(tenant, ids)
                await self._recall.raise_bars(names, found.values())

    async def bars(self, tenant: str, space: str) -> Sequence[bytes]:
        """Give the vectors of what was rated down in a space."""
        with translated():
            return await self._recall.bars(TenantKeys(self._prefix, tenant), space)

    async def credit(self, credits: Sequence[Credit]) -> None:
        """Count hits for entries' worth."""
        with translated():
            await self._recall.credit(credits)

    async def tenants(self) -> Mapping[str, int]:
        """Name the tenants that hold entries."""
        with translated():
            return await self._recall.tenants()

    async def ids(self, tenant: str) -> AsyncIterator[Sequence[str]]:
        """Page through the ids of a tenant's entries."""
        with translated():
            async for page in self._recall.ids(tenant):
                yield page

    async def meanings(self, tenant: str, ids: Sequence[str]) -> Mapping[str, Meaning]:
        """Read meanings by id."""
        with translated():
            return await self._recall.meanings(tenant, ids)

    async def totals(self, tenant: str) -> Totals:
        """Count a tenant's entries and bytes."""
        names = TenantKeys(self._prefix, tenant)
        with translated():
            epoch = await current_epoch(self._client, names)
            if epoch is None:
                return Totals(0, 0)
            return await self._removal.measure(names.epoch(epoch))

    async def sweep(self) -> Swept:
        """Do one round of upkeep."""
        with translated():
            swept = await self._sweep.run()
        self._all = swept.totals
        return swept

    async def ping(self) -> None:
        """Return when Redis answers."""
        with translated():
            await self._client.execute_command("PING")

    async def close(self) -> None:
        """Give back connections."""
        await self._client.aclose()


def _wrong_type(error: Exception) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")
