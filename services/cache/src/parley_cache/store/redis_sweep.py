"""Rounds of upkeep over all tenants in Redis.

One replica sweeps for all. A round forgets what expired, gives back the memory
of invalidated epochs, drops barriers that no longer stand, and keeps the bound
on all tenants together by taking from the largest. Its work is bounded; what
is left goes on in the next round. Nothing depends on it for correctness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from redis.exceptions import OutOfMemoryError, WatchError

from parley_cache.model import Totals
from parley_cache.store.base import Limits, Swept
from parley_cache.store.redis_client import Client
from parley_cache.store.redis_keys import EpochKeys, TenantKeys, decode_barrier, old_epoch_field
from parley_cache.store.redis_removal import BATCH, RedisRemoval
from parley_cache.store.redis_transaction import execute

_ROUNDS_A_TENANT = 64
"""Batches that one sweep gives a tenant at most; the next one goes on."""
_PAGE = 512


@dataclass(slots=True)
class _Tally:
    expired: int = 0
    evicted: int = 0
    purged: int = 0


class RedisSweep:
    """Sweeping for `RedisStore`.

    Args:
        client: the connection.
        prefix: of every key.
        removal: removes entries.
        limits: bounds on what is kept.
        clock: Unix seconds.
        sweep_seconds: for how long one replica's sweep stands for all.
    """

    def __init__(
        self,
        client: Client,
        prefix: str,
        removal: RedisRemoval,
        limits: Limits,
        *,
        clock: Callable[[], float],
        sweep_seconds: float,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._removal = removal
        self._limits = limits
        self._clock = clock
        self._sweep_seconds = sweep_seconds

    async def _total(self) -> tuple[Totals, int]:
        """What all tenants held at the last sweep, and how many they were."""
        raw = await self._client.execute_command(
            "HMGET", f"{self._prefix}:total", "entries", "bytes", "tenants"
        )
        entries, size, tenants = (int(value or 0) for value in raw)
        return Totals(entries, size), tenants

    async def run(self) -> Swept:
        """Do one round, unless another replica did within `sweep_seconds`."""
        if not await self._take_turn():
            totals, tenants = await self._total()
            return Swept(totals, tenants, 0, 0, 0)
        tally = _Tally()
        held: dict[str, Totals] = {}
        cursor = b"0"
        while True:
            cursor, page = await self._client.execute_command(
                "HSCAN", f"{self._prefix}:tenants", cursor, "COUNT", _PAGE
            )
            for raw in page:
                tenant = raw.decode()
                totals = await self._sweep_tenant(tenant, tally)
                if totals.entries or totals.bytes:
                    held[tenant] = totals
            if int(cursor) == 0:
                break
        await self._bound(held, tally)
        swept = Swept(
            Totals(
                sum(totals.entries for totals in held.values()),
                sum(totals.bytes for totals in held.values()),
            ),
            len(held),
            tally.expired,
            tally.evicted,
            tally.purged,
        )
        await self._removal.unless_full(
            "HSET",
            f"{self._prefix}:total",
            *("entries", swept.totals.entries, "bytes", swept.totals.bytes),
            *("tenants", swept.tenants),
        )
        return swept

    async def _take_turn(self) -> bool:
        try:
            taken = await self._client.execute_command(
                *("SET", f"{self._prefix}:sweeper", "1"),
                *("NX", "PX", max(1, int(self._sweep_seconds * 1000))),
            )
        except OutOfMemoryError:
            return True  # now of all times
        return bool(taken)

    async def _sweep_tenant(self, tenant: str, tally: _Tally) -> Totals:
        names = TenantKeys(self._prefix, tenant)
        result = await self._sweep_epochs(names, tally)
        if result == Totals(0, 0):
            # Off the list first and looked at again, so that a Store in between
            # is not lost: nothing is held by a tenant that is not on the list.
            await self._client.execute_command("HDEL", f"{self._prefix}:tenants", tenant)
            result = await self._sweep_epochs(names, tally)
            if result == Totals(0, 0):
                return result
        await self._removal.register(tenant, result)
        return result

    async def _sweep_epochs(self, names: TenantKeys, tally: _Tally) -> Totals:
        now = self._clock()
        epoch, old_epochs = await self._tidy_meta(names, now)
        entries = size = 0
        for old in old_epochs:
            size += await self._purge(names, old, tally)
        if epoch is not None:
            keys = names.epoch(epoch)
            tally.expired += await self._forget_expired(keys, now)
            totals = await self._removal.measure(keys)
            if totals.bytes and not await self._client.execute_command("ZCARD", keys.expiry):
                await self._removal.recount(keys)
                totals = await self._removal.measure(keys)
            entries, size = entries + totals.entries, size + totals.bytes
        return Totals(entries, size)

    async def _tidy_meta(self, names: TenantKeys, now: float) -> tuple[str | None, list[str]]:
        """Drop barriers that no longer stand; give the epoch and those to purge."""
        async with self._client.pipeline(transaction=True) as tx:
            await tx.execute_command("WATCH", names.meta)
            epoch = await tx.execute_command("HGET", names.meta, "epoch")
            fields: list[bytes] = []
            cursor = b"0"
            while True:
                cursor, page = await tx.execute_command("HSCAN", names.meta, cursor, "COUNT", _PAGE)
                fields += [
                    name
                    for name, value in page.items()
                    if name.startswith(b"old:")
                    or (name.startswith(b"b:") and decode_barrier(value).expires_at <= now)
                ]
                if int(cursor) == 0:
                    break
            over = [name for name in set(fields) if name.startswith(b"b:")]
            if over:
                tx.multi()
                tx.execute_command("HDEL", names.meta, *over)
                try:
                    await execute(tx)
                except WatchError:
                    # A barrier was set meanwhile, perhaps one of these: next round.
                    over = []
        old = sorted({name[4:].decode() for name in fields if name.startswith(b"old:")})
        return (epoch.decode() if epoch is not None else None), old

    async def _forget_expired(self, keys: EpochKeys, now: float) -> int:
        removed = 0
        lost = False
        for _ in range(_ROUNDS_A_TENANT):
            ids = await self._client.execute_command(
                "ZRANGEBYSCORE", keys.expiry, "-inf", int(now * 1000), "LIMIT", 0, BATCH
            )
            if not ids:
                break
            count = await self._removal.remove(keys, [raw.decode() for raw in ids])
            lost = lost or count < len(ids)
            removed += count
            await asyncio.sleep(0)
        if lost:
            await self._removal.recount(keys)
        return removed

    async def _purge(self, names: TenantKeys, epoch: str, tally: _Tally) -> int:
        """Give back memory of an invalidated epoch; give the bytes that are left."""
        keys = names.epoch(epoch)
        for _ in range(_ROUNDS_A_TENANT):
            ids = await self._client.execute_command("ZRANGE", keys.expiry, 0, BATCH - 1)
            if not ids:
                await self._client.execute_command("UNLINK", keys.expiry, keys.total, keys.worth)
                await self._client.execute_command("HDEL", names.meta, old_epoch_field(epoch))
                return 0
            tally.purged += await self._removal.remove(
                keys, [raw.decode() for raw in ids], quietly=True
            )
            await asyncio.sleep(0)
        # More than nothing, so that the tenant stays on the list for the next round.
        return max(1, (await self._removal.measure(keys)).bytes)

    async def _bound(self, held: dict[str, Totals], tally: _Tally) -> None:
        """Take from the largest tenants until all together are within the bounds."""
        for _ in range(_ROUNDS_A_TENANT):
            entries = sum(totals.entries for totals in held.values())
            size = sum(totals.bytes for totals in held.values())
            if not held or not self._limits.exceeded(Totals(entries, size)):
                return
            tenant = max(held, key=lambda name: (held[name].bytes, held[name].entries))
            names = TenantKeys(self._prefix, tenant)
            epoch = await self._client.execute_command("HGET", names.meta, "epoch")
            if epoch is None:
                del held[tenant]
                continue
            keys = names.epoch(epoch.decode())
            share = max(1, held[tenant].bytes // 8), max(1, held[tenant].entries // 8)
            removed = await self._removal.make_room(
                keys,
                free_bytes=min(max(0, size - self._limits.max_bytes), share[0]),
                free_entries=min(max(0, entries - self._limits.max_entries), share[1]),
            )
            tally.evicted += removed
            before, held[tenant] = held[tenant], await self._removal.measure(keys)
            await self._removal.register(tenant, held[tenant])
            if not removed or before == held[tenant]:
                return
