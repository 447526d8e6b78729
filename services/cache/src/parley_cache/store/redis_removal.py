"""Removing entries from Redis with exact bookkeeping.

An entry is removed in a transaction that watches its bookkeeping key: of
several removers (two sweeps, an eviction, an invalidation, a replacing Store)
one succeeds and subtracts its bytes, the others find nothing left to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from redis.exceptions import OutOfMemoryError, WatchError

from parley_cache.model import Totals
from parley_cache.store.base import Removed
from parley_cache.store.redis_client import Client
from parley_cache.store.redis_keys import Bookkeeping, EpochKeys, TenantKeys
from parley_cache.store.redis_transaction import current_epoch, execute

BATCH = 128
"""Entries that one transaction removes at most."""
_TRIES = 8
_PAGE = 512
_GIVE_WAY_BYTES = 65_536
"""Given back at the least when Redis itself is full."""


class RedisRemoval:
    """Removes entries and counts what is left.

    Args:
        client: the connection.
        prefix: of every key.
        clock: Unix seconds.
    """

    def __init__(self, client: Client, prefix: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._prefix = prefix
        self._clock = clock
        self.listener: Callable[[Sequence[Removed]], None] | None = None
        """Told of what left and was in the index; must not wait."""
        # Bytes removed while Redis had no memory even for counting down.
        self._owed: Counter[str] = Counter()

    async def remove(self, keys: EpochKeys, ids: Iterable[str], *, quietly: bool = False) -> int:
        """Remove entries by id; give how many there were.

        `quietly`: without telling the listener, as for an epoch that ended: the same
        ids may be in use under the next.
        """
        remaining = iter(ids)
        removed = 0
        while batch := list(islice(remaining, BATCH)):
            for last in (False,) * (_TRIES - 1) + (True,):
                try:
                    removed += await self._remove_batch(keys, batch, quietly)
                    break
                except WatchError:
                    if last:
                        # Others write these very entries; one by one each gets a turn.
                        removed += await self._remove_singly(keys, batch, quietly)
        return removed

    async def _remove_singly(self, keys: EpochKeys, ids: list[str], quietly: bool) -> int:
        removed = 0
        for entry_id in ids:
            for last in (False,) * (_TRIES - 1) + (True,):
                try:
                    removed += await self._remove_batch(keys, [entry_id], quietly)
                    break
                except WatchError:
                    if last:
                        raise
        return removed

    async def _remove_batch(self, keys: EpochKeys, ids: list[str], quietly: bool) -> int:
        """Remove in one transaction that Redis accepts even when it is full."""
        async with self._client.pipeline(transaction=True) as tx:
            watched = [keys.bookkeeping(entry_id) for entry_id in ids]
            await tx.execute_command("WATCH", *watched)
            raw = await tx.execute_command("MGET", *watched)
            books = [Bookkeeping.decode(value) for value in raw]
            tx.multi()
            records = [name(i) for i in ids for name in (keys.record, keys.meaning)]
            tx.execute_command("UNLINK", *records, *watched)
            tx.execute_command("ZREM", keys.expiry, *ids)
            tx.execute_command("ZREM", keys.worth, *ids)
            freed = 0
            for entry_id, book in zip(ids, books, strict=True):
                if book is not None:
                    freed += book.size
                    for index in keys.indices(book.names):
                        tx.execute_command("SREM", index, entry_id)
            await execute(tx)
        # Counting down may be refused for want of memory, so it stands apart;
        # what a crash here leaves too high is counted anew by a sweep.
        self._owed[keys.total] += freed
        await self._settle(keys.total)
        if not quietly:
            self.tell(
                [
                    Removed(keys.tenant, book.space, entry_id)
                    for entry_id, book in zip(ids, books, strict=True)
                    if book is not None and book.space
                ]
            )
        return sum(book is not None for book in books)

    def tell(self, removed: Sequence[Removed]) -> None:
        """Tell the listener, if there is one."""
        if removed and self.listener is not None:
            self.listener(removed)

    async def _settle(self, total_key: str) -> None:
        owed = self._owed.pop(total_key, 0)
        if owed and not await self.unless_full("DECRBY", total_key, owed):
            self._owed[total_key] += owed

    async def unless_full(self, *command: str | int) -> bool:
        """Run a command that can wait for another time; say whether Redis had room for it."""
        try:
            await self._client.execute_command(*command)
        except OutOfMemoryError:
            return False
        return True

    async def make_room(
        self, keys: EpochKeys, *, free_bytes: int, free_entries: int, spare: str = ""
    ) -> int:
        """Remove what expired, then what is worth least, until so much is free; give how many.

        `spare` names an entry that is left alone.
        """
        removed = 0
        while free_bytes > 0 or free_entries > 0:
            names = [name for name in await self._least(keys) if name != spare]
            if not names:
                break
            raw = await self._client.execute_command(
                "MGET", *(keys.bookkeeping(name) for name in names)
            )
            chosen: list[str] = []
            for name, value in zip(names, raw, strict=True):
                if free_bytes <= 0 and free_entries <= 0:
                    break
                chosen.append(name)
                book = Bookkeeping.decode(value)
                if book is not None:
                    free_bytes -= book.size
                    free_entries -= 1
            removed += await self.remove(keys, chosen)
        return removed

    async def _least(self, keys: EpochKeys) -> list[str]:
        """Name entries in the order in which they are to go, one batch and one more."""
        now = int(self._clock() * 1000)
        ids = await self._client.execute_command(
            "ZRANGEBYSCORE", keys.expiry, "-inf", now, "LIMIT", 0, BATCH + 1
        )
        if not ids:
            ids = await self._client.execute_command("ZRANGE", keys.worth, 0, BATCH)
        if not ids:
            # Redis may have forgotten the one key, never the entries.
            ids = await self._client.execute_command("ZRANGE", keys.expiry, 0, BATCH)
        return [raw.decode() for raw in ids]

    async def give_way(self, names: TenantKeys, size: int = 0) -> int:
        """Remove entries of a tenant because Redis itself is full; give how many.

        Makes room for several entries of `size` bytes, so that the cache goes
        on renewing itself instead of falling silent.
        """
        epoch = await current_epoch(self._client, names)
        if epoch is None:
            return 0
        return await self.make_room(
            names.epoch(epoch), free_bytes=max(4 * size, _GIVE_WAY_BYTES), free_entries=0
        )

    async def measure(self, keys: EpochKeys) -> Totals:
        """Count the entries of an epoch that have not expired, and its bytes."""
        now = int(self._clock() * 1000)
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.execute_command("ZCOUNT", keys.expiry, f"({now}", "+inf")
            pipe.execute_command("GET", keys.total)
            entries, total = await pipe.execute()
        return Totals(int(entries), max(0, int(total or 0)))

    async def register(self, tenant: str, totals: Totals) -> None:
        """Note what a tenant holds, where sweeps find it."""
        await self.unless_full(
            "HSET", f"{self._prefix}:tenants", tenant, f"{totals.bytes}:{totals.entries}"
        )

    async def recount(self, keys: EpochKeys) -> None:
        """Add the bytes up anew: Redis dropped bookkeeping that was never subtracted."""
        async with self._client.pipeline(transaction=True) as tx:
            await tx.execute_command("WATCH", keys.total)
            total = 0
            start = 0
            while True:
                ids = await tx.execute_command("ZRANGE", keys.expiry, start, start + _PAGE - 1)
                if not ids:
                    break
                raw = await tx.execute_command(
                    "MGET", *(keys.bookkeeping(name.decode()) for name in ids)
                )
                books = (Bookkeeping.decode(value) for value in raw)
                total += sum(book.size for book in books if book is not None)
                start += _PAGE
            tx.multi()
            tx.execute_command("SET", keys.total, total, "KEEPTTL")
            try:
                await execute(tx)
            except WatchError:
                # Entries came or went while counting; the next round counts again.
                return
