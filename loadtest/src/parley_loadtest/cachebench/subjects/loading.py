"""Writes the keys of many entries as `RedisStore.put` leaves them, without its transactions.

What is measured begins when the entries are there; one by one, storing 100,000 takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterable

from parley_cache.keys import EntryKey, source_names
from parley_cache.model import Entry, Meaning, Sources, Totals
from parley_cache.record import encode_entry, encode_meaning
from parley_cache.store.base import ENTRY_OVERHEAD_BYTES
from parley_cache.store.redis import RedisStore
from parley_cache.store.redis_client import Client
from parley_cache.store.redis_keys import Bookkeeping, TenantKeys
from parley_cache.store.worth import first_score

Made = tuple[EntryKey, Entry, Sources, Meaning]
_BATCH = 250


async def load(store: RedisStore, client: Client, prefix: str, made: Iterable[Made]) -> None:
    """Store the first as any other is, which makes the tenant, and write the rest beside it."""
    rows = iter(made)
    key, entry, sources, meaning = next(rows)
    await store.put(key, entry, sources, None, meaning)
    names = TenantKeys(prefix, key.tenant)
    keys = names.epoch((await client.execute_command("HGET", names.meta, "epoch")).decode())
    totals = await store.totals(key.tenant)
    entries, size = totals.entries, totals.bytes
    pipe = client.pipeline(transaction=False)
    waiting = 0
    for key, entry, sources, meaning in rows:
        blob, beside = encode_entry(entry), encode_meaning(meaning)
        book = Bookkeeping(
            len(blob) + len(beside) + ENTRY_OVERHEAD_BYTES, source_names(sources), meaning.space
        )
        expires, entry_id = int(entry.expires_at * 1000), key.entry_id
        pipe.execute_command("SET", keys.record(entry_id), blob, "PXAT", expires)
        pipe.execute_command("SET", keys.bookkeeping(entry_id), book.encode(), "PXAT", expires)
        pipe.execute_command("SET", keys.meaning(entry_id), beside, "PXAT", expires)
        worth = first_score(entry.stored_at, entry.completion_tokens, book.size)
        pipe.execute_command("ZADD", keys.worth, worth, entry_id)
        pipe.execute_command("ZADD", keys.expiry, expires, entry_id)
        for index in keys.indices(book.names):
            pipe.execute_command("SADD", index, entry_id)
        entries, size, waiting = entries + 1, size + book.size, waiting + 1
        if waiting == _BATCH:
            await pipe.execute()
            waiting = 0
    await pipe.execute()
    await client.execute_command("SET", keys.total, size)
    totals = Totals(entries, size)
    await client.execute_command(
        "HSET", f"{prefix}:tenants", names.tenant, f"{totals.bytes}:{totals.entries}"
    )
