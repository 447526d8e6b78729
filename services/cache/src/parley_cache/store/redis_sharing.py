"""Who asked and who is flagged, in Redis: what sharing answers between users takes."""

from __future__ import annotations

from collections.abc import Iterable

from parley_cache.record import CorruptRecord, decode_entry
from parley_cache.store.base import ASKED_SECONDS, FLAG_SECONDS
from parley_cache.store.redis_client import Client
from parley_cache.store.redis_keys import TenantKeys
from parley_cache.store.redis_transaction import current_epoch

_MOST_ASKERS = 64
"""No bound on sharing is higher, and nobody needs to know of more."""


class RedisSharing:
    """Counts askers and flags users."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def note(self, names: TenantKeys, entry_id: str, user: str) -> int:
        """Count one who asked."""
        key = names.askers(entry_id)
        held = int(await self._client.execute_command("SCARD", key))
        if held >= _MOST_ASKERS:
            return held
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.execute_command("SADD", key, user)
            pipe.execute_command("PEXPIRE", key, int(ASKED_SECONDS * 1000))
            pipe.execute_command("SCARD", key)
            *_, count = await pipe.execute()
        return int(count)

    async def flag(self, names: TenantKeys, ids: Iterable[str]) -> int:
        """Flag those who share any of these entries."""
        epoch = await current_epoch(self._client, names)
        keys = names.epoch(epoch or "")
        raw = await self._client.execute_command("MGET", *(keys.record(name) for name in ids))
        users: set[str] = set()
        for blob in raw:
            try:
                users.add(decode_entry(blob or b"").shared_by)
            except CorruptRecord:
                continue
        users.discard("")
        for user in users:
            life = int(FLAG_SECONDS * 1000)
            await self._client.execute_command("SET", names.flag(user), "1", "PX", life)
        return len(users)

    async def is_flagged(self, names: TenantKeys, user: str) -> bool:
        """Say whether a user is flagged."""
        return bool(await self._client.execute_command("EXISTS", names.flag(user)))
