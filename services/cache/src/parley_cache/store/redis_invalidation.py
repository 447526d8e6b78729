"""Invalidating in Redis: a barrier first, then what it covers is removed.

The barrier changes the tenant's meta key, which every writing transaction
watches: a Store that has not finished by then tries again and is refused, and
one that has is found in the indices and removed. Invalidating a whole tenant
ends its epoch, whatever its size; sweeps give the memory back.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

from redis.exceptions import OutOfMemoryError

from parley_cache.barriers import ALL, Barrier, barrier_of
from parley_cache.keys import source_names
from parley_cache.model import Selector, Sources
from parley_cache.store.base import BarrierLives, Removed
from parley_cache.store.redis_client import Client
from parley_cache.store.redis_keys import (
    EpochKeys,
    TenantKeys,
    barrier_field,
    encode_barrier,
    old_epoch_field,
)
from parley_cache.store.redis_removal import BATCH, RedisRemoval
from parley_cache.store.redis_transaction import current_epoch, execute, renew, retrying, text


class RedisInvalidation:
    """Invalidation for `RedisStore`.

    Args:
        client: the connection.
        prefix: of every key.
        removal: removes entries.
        lives: how long barriers stand.
        max_barriers: see `RedisStore`.
        clock: Unix seconds.
    """

    def __init__(
        self,
        client: Client,
        prefix: str,
        removal: RedisRemoval,
        lives: BarrierLives,
        *,
        max_barriers: int,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._removal = removal
        self._lives = lives
        self._max_barriers = max_barriers
        self._clock = clock

    async def run(self, tenant: str, selector: Selector) -> int:
        """Leave the barrier and remove what matches; give the number of entries."""
        names = TenantKeys(self._prefix, tenant)
        removed = 0
        try:
            epoch, whole = await retrying(lambda: self._raise_barrier(names, selector))
        except OutOfMemoryError:
            # A barrier needs memory: what it is to remove gives some.
            removed = await self._remove_matching(names, selector)
            await self._removal.give_way(names)
            epoch, whole = await retrying(lambda: self._raise_barrier(names, selector))
        if epoch is None:
            return removed
        keys = names.epoch(epoch)
        if whole:
            self._removal.tell([Removed(tenant, "", "")])
            return (await self._removal.measure(keys)).entries
        removed += await self._remove_matching(names, selector)
        await self._removal.register(tenant, await self._removal.measure(keys))
        return removed

    async def count(self, tenant: str, selector: Selector) -> int:
        """Count what `run` would remove."""
        names = TenantKeys(self._prefix, tenant)
        epoch = await current_epoch(self._client, names)
        if epoch is None:
            return 0
        keys = names.epoch(epoch)
        if selector.all:
            return (await self._removal.measure(keys)).entries
        seen: set[str] = set()
        count = 0
        async for ids in self._matching(keys, selector):
            fresh = [entry_id for entry_id in ids if entry_id not in seen]
            seen.update(fresh)
            count += await self._live(keys, fresh)
        return count

    async def matching(self, names: TenantKeys, selector: Selector) -> AsyncIterator[list[str]]:
        """Page through the ids that `run` would remove; none for a whole tenant."""
        epoch = await current_epoch(self._client, names)
        if epoch is not None:
            async for ids in self._matching(names.epoch(epoch), selector):
                yield ids

    async def _raise_barrier(
        self, names: TenantKeys, selector: Selector
    ) -> tuple[str | None, bool]:
        """Leave the barrier; give the epoch before it, and whether that has ended."""
        name, absolute = barrier_of(selector)
        life = self._lives.tombstone_seconds if absolute else self._lives.barrier_seconds
        async with self._client.pipeline(transaction=True) as tx:
            await tx.execute_command("WATCH", names.meta)
            raw_epoch, raw_sequence = await tx.execute_command("HMGET", names.meta, "epoch", "seq")
            held = await tx.execute_command("HLEN", names.meta)
            epoch, sequence = text(raw_epoch), int(raw_sequence or 0) + 1
            crowded = held > self._max_barriers
            whole = selector.all or crowded
            ended = await self._old_epochs(tx, names) if crowded else []
            if crowded:
                name, absolute = ALL, False
                life = max(self._lives.tombstone_seconds, self._lives.barrier_seconds)
            now = self._clock()
            fields: list[str | int] = ["seq", sequence]
            fields += [barrier_field(name), encode_barrier(Barrier(absolute, sequence, now + life))]
            if whole:
                fields += ["epoch", secrets.token_hex(8)]
                for old in [*ended, *([epoch] if epoch else [])]:
                    fields += [old_epoch_field(old), "1"]
            tx.multi()
            if crowded:
                tx.execute_command("UNLINK", names.meta)
            renew(tx, names, now, *fields)
            await execute(tx)
        return epoch, whole

    async def _old_epochs(self, tx: Client, names: TenantKeys) -> list[str]:
        """Epochs whose memory is still to be given back."""
        found: set[str] = set()
        cursor: Any = 0
        while True:
            cursor, page = await tx.execute_command(
                "HSCAN", names.meta, cursor, "MATCH", "old:*", "COUNT", 1000
            )
            found.update(name[4:].decode() for name in page)
            if int(cursor) == 0:
                return sorted(found)

    async def _remove_matching(self, names: TenantKeys, selector: Selector) -> int:
        """Remove page by page, so that what was done is done when time runs out."""
        epoch = await current_epoch(self._client, names)
        if epoch is None:
            return 0
        keys = names.epoch(epoch)
        removed = 0
        async for ids in self._matching(keys, selector):
            removed += await self._live(keys, ids)
            await self._removal.remove(keys, ids)
        return removed

    async def _live(self, keys: EpochKeys, ids: list[str]) -> int:
        if not ids:
            return 0
        now = self._clock() * 1000
        scores = await self._client.execute_command("ZMSCORE", keys.expiry, *ids)
        return sum(score is not None and float(score) > now for score in scores)

    async def _matching(self, keys: EpochKeys, selector: Selector) -> AsyncIterator[list[str]]:
        """Page through the ids in every index that the selector names, the narrowest first."""
        names = source_names(
            Sources(selector.chat_id, selector.message_id, selector.user, selector.model)
        )
        indices: list[str] = []
        if selector.message_id:
            indices.append(keys.message(names.message))
        if selector.chat_id:
            indices.append(keys.chat(names.chat))
        if selector.user:
            indices.append(keys.user(names.user))
        if selector.model:
            indices.append(keys.model(names.model))
        if not indices:  # `all` ends the epoch and has no pages
            return
        first, *others = indices
        cursor: Any = 0
        while True:
            cursor, page = await self._client.execute_command(
                "SSCAN", first, cursor, "COUNT", BATCH
            )
            ids = [raw.decode() for raw in page]
            for other in others:
                if not ids:
                    break
                present = await self._client.execute_command("SMISMEMBER", other, *ids)
                ids = [entry_id for entry_id, held in zip(ids, present, strict=True) if held]
            if ids:
                yield ids
            if int(cursor) == 0:
                return
