"""Single-flight leases in Redis: one key each, gone by itself when its holder is."""

from __future__ import annotations

from collections.abc import Sequence

from parley_cache.store.base import Lease
from parley_cache.store.redis_client import Client, Command
from parley_cache.store.redis_transaction import execute, retrying

_OPEN = b"-"


class RedisLeases:
    """Takes, renews and ends leases by the names of their keys."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @staticmethod
    def taking(name: str, token: str, seconds: float) -> Sequence[Command]:
        """Give the commands that take one, for a pipeline; `taken` reads their replies."""
        return (("SET", name, token, "NX", "PX", _milliseconds(seconds)), ("GET", name))

    @staticmethod
    def taken(replies: Sequence[bytes | None], token: str) -> Lease:
        """Say what came of taking one."""
        _, held = replies
        if held == token.encode():
            return Lease.TAKEN
        # None: it ended between the two; whoever asks again gets it.
        return Lease.OPEN if held == _OPEN else Lease.HELD

    async def peek(self, name: str) -> Lease | None:
        """Say whether one is held or open."""
        held = await self._client.execute_command("GET", name)
        if held is None:
            return None
        return Lease.OPEN if held == _OPEN else Lease.HELD

    async def renew(self, name: str, token: str, seconds: float) -> bool:
        """Let one that is held by `token` stand for so long."""

        async def attempt() -> bool:
            async with self._client.pipeline(transaction=True) as tx:
                await tx.execute_command("WATCH", name)
                if await tx.execute_command("GET", name) != token.encode():
                    return False
                tx.multi()
                tx.execute_command("PEXPIRE", name, _milliseconds(seconds))
                [extended] = await execute(tx)
                return bool(extended)

        return await retrying(attempt)

    async def end(self, name: str, token: str, open_seconds: float) -> None:
        """End one that is held by `token`."""

        async def attempt() -> None:
            async with self._client.pipeline(transaction=True) as tx:
                await tx.execute_command("WATCH", name)
                if await tx.execute_command("GET", name) != token.encode():
                    return
                tx.multi()
                if open_seconds > 0:
                    tx.execute_command("SET", name, _OPEN, "PX", _milliseconds(open_seconds))
                else:
                    tx.execute_command("UNLINK", name)
                await execute(tx)

        await retrying(attempt)


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
