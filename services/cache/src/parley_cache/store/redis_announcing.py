"""Questions that are being answered, in Redis: one hash a space, bounded and short-lived.

A value is when it was left and when it ends (8 bytes each, milliseconds, big-endian), and
the record.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from parley_cache.store.base import MAX_ANNOUNCED
from parley_cache.store.redis_client import Client
from parley_cache.store.redis_transaction import execute

_TIMES = struct.Struct(">QQ")


class RedisAnnouncing:
    """Leaves, prolongs and takes back records by the names of their spaces' keys.

    Args:
        client: the connection.
        clock: Unix seconds.
    """

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock

    async def announce(
        self, name: str, token: str, record: bytes, seconds: float
    ) -> Sequence[bytes]:
        """Leave a record; give those that were there, in one transaction."""
        now = self._now()
        until = now + _milliseconds(seconds)
        async with self._client.pipeline(transaction=True) as tx:
            tx.multi()
            tx.execute_command("HGETALL", name)
            tx.execute_command("HSET", name, token, _TIMES.pack(now, until) + record)
            tx.execute_command("PEXPIRE", name, _milliseconds(seconds))
            held, *_ = await execute(tx)
        others, over = [], []
        for who, value in held.items():
            if len(value) < _TIMES.size or _TIMES.unpack_from(value)[1] <= now:
                over.append(who)
            elif who != token.encode():
                others.append(value)
        if len(others) >= MAX_ANNOUNCED:
            over.append(token.encode())
        if over:
            await self._client.execute_command("HDEL", name, *over)
        return [value[_TIMES.size :] for value in sorted(others)[:MAX_ANNOUNCED]]

    async def prolong(self, name: str, token: str, seconds: float) -> None:
        """Let a record stand. One that is withdrawn in between comes back, until its time."""
        value = await self._client.execute_command("HGET", name, token)
        if value is None or len(value) < _TIMES.size:
            return
        since, _ = _TIMES.unpack_from(value)
        times = _TIMES.pack(since, self._now() + _milliseconds(seconds))
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.execute_command("HSET", name, token, times + value[_TIMES.size :])
            pipe.execute_command("PEXPIRE", name, _milliseconds(seconds))
            await pipe.execute()

    async def withdraw(self, name: str, token: str) -> None:
        """Take a record back."""
        await self._client.execute_command("HDEL", name, token)

    def _now(self) -> int:
        return int(self._clock() * 1000)


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
