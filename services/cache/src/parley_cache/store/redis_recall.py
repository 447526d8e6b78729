"""What the semantic tier reads and notes in Redis: nominees, meanings, hits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from parley_cache.model import Credit, Meaning, Recalled
from parley_cache.record import CorruptRecord, decode_entry, decode_meaning
from parley_cache.store.base import BAR_SECONDS, MAX_BARS
from parley_cache.store.redis_client import Client
from parley_cache.store.redis_keys import Bookkeeping, EpochKeys, TenantKeys
from parley_cache.store.redis_transaction import current_epoch
from parley_cache.store.worth import first_score, score_after

_PAGE = 256


class RedisRecall:
    """Reading for `RedisStore`, beside the exact look-up.

    Args:
        client: the connection.
        prefix: of every key.
        clock: Unix seconds.
    """

    def __init__(self, client: Client, prefix: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._prefix = prefix
        self._clock = clock

    async def recall(
        self, tenant: str, epoch: str, ids: Sequence[str]
    ) -> tuple[str | None, list[Recalled | None]]:
        """Read entries under an epoch, and the epoch that stands, in one round trip."""
        names = TenantKeys(self._prefix, tenant)
        keys = names.epoch(epoch)
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.execute_command("HGET", names.meta, "epoch")
            pipe.execute_command("MGET", *(keys.record(entry_id) for entry_id in ids))
            pipe.execute_command("MGET", *(keys.meaning(entry_id) for entry_id in ids))
            current, records, meanings = await pipe.execute()
        found = [
            self._judge(entry_id, record, meaning)
            for entry_id, record, meaning in zip(ids, records, meanings, strict=True)
        ]
        return (current.decode() if current is not None else None), found

    def _judge(self, entry_id: str, record: Any, meaning: Any) -> Recalled | None:
        if record is None or meaning is None:
            return None
        try:
            entry, beside = decode_entry(record), decode_meaning(meaning)
        except CorruptRecord:
            return None
        if entry.entry_id != entry_id or entry.expires_at <= self._clock():
            return None
        return Recalled(entry, beside)

    async def raise_bars(self, names: TenantKeys, meanings: Iterable[Meaning]) -> None:
        """Keep vectors of what was rated down."""
        async with self._client.pipeline(transaction=False) as pipe:
            for meaning in meanings:
                key = names.bars(meaning.space)
                pipe.execute_command("RPUSH", key, meaning.vector)
                pipe.execute_command("LTRIM", key, -MAX_BARS, -1)
                pipe.execute_command("PEXPIRE", key, int(BAR_SECONDS * 1000))
            await pipe.execute()

    async def bars(self, names: TenantKeys, space: str) -> Sequence[bytes]:
        """Give these vectors."""
        found: list[bytes] = await self._client.execute_command(
            "LRANGE", names.bars(space), 0, MAX_BARS - 1
        )
        return found

    async def credit(self, credits: Iterable[Credit]) -> None:
        """Count hits; a race with another replica loses some of them, which is harmless."""
        by_tenant: dict[str, list[Credit]] = defaultdict(list)
        for credit in credits:
            by_tenant[credit.tenant].append(credit)
        for tenant, of_tenant in by_tenant.items():
            names = TenantKeys(self._prefix, tenant)
            epoch = await current_epoch(self._client, names)
            for start in range(0, len(of_tenant) if epoch is not None else 0, _PAGE):
                page = of_tenant[start : start + _PAGE]
                await self._credit_page(names.epoch(epoch or ""), page)

    async def _credit_page(self, keys: EpochKeys, page: Sequence[Credit]) -> None:
        ids = [credit.entry_id for credit in page]
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.execute_command("ZMSCORE", keys.worth, *ids)
            pipe.execute_command("MGET", *(keys.bookkeeping(entry_id) for entry_id in ids))
            scores, books = await pipe.execute()
        now = self._clock()
        changes: list[float | str] = []
        for credit, score, raw in zip(page, scores, books, strict=True):
            book = Bookkeeping.decode(raw)
            if book is None:
                continue
            old = first_score(now, credit.tokens, book.size) if score is None else float(score)
            after = score_after(old, now, credit.tokens, book.size, credit.hits)
            changes += [after, credit.entry_id]
        if changes:
            # XX: what was removed meanwhile stays removed.
            await self._client.execute_command("ZADD", keys.worth, "XX", *changes)

    async def tenants(self) -> Mapping[str, int]:
        """Name the tenants that hold entries."""
        found: dict[str, int] = {}
        cursor: Any = 0
        while True:
            cursor, page = await self._client.execute_command(
                "HSCAN", f"{self._prefix}:tenants", cursor, "COUNT", _PAGE
            )
            for name, held in page.items():
                _, _, entries = held.decode("ascii", "replace").partition(":")
                found[name.decode()] = int(entries) if entries.isdigit() else 0
            if int(cursor) == 0:
                return found

    async def ids(self, tenant: str) -> AsyncIterator[Sequence[str]]:
        """Page through ids; each that stays is given, some perhaps twice."""
        epoch = await current_epoch(self._client, TenantKeys(self._prefix, tenant))
        if epoch is None:
            return
        key = TenantKeys(self._prefix, tenant).epoch(epoch).expiry
        cursor: Any = 0
        now = self._clock() * 1000
        while True:
            cursor, page = await self._client.execute_command("ZSCAN", key, cursor, "COUNT", _PAGE)
            ids = [
                name.decode() if isinstance(name, bytes) else str(name)
                for name, score in page
                if float(score) > now
            ]
            if ids:
                yield ids
            if int(cursor) == 0:
                return

    async def meanings(self, tenant: str, ids: Sequence[str]) -> Mapping[str, Meaning]:
        """Read meanings by id."""
        names = TenantKeys(self._prefix, tenant)
        epoch = await current_epoch(self._client, names)
        if epoch is None or not ids:
            return {}
        keys = names.epoch(epoch)
        raw = await self._client.execute_command("MGET", *(keys.meaning(name) for name in ids))
        found: dict[str, Meaning] = {}
        for entry_id, blob in zip(ids, raw, strict=True):
            if blob is None:
                continue
            try:
                found[entry_id] = decode_meaning(blob)
            except CorruptRecord:
                continue
        return found
