"""What the cache's transactions in Redis have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from redis.exceptions import ExecAbortError, OutOfMemoryError, WatchError

from parley_cache.store.base import StoreUnavailable
from parley_cache.store.redis_client import Client
from parley_cache.store.redis_keys import TenantKeys

T = TypeVar("T")

DAY = 86_400.0
HORIZON_MS = int(40 * DAY * 1000)
"""A tenant's shared keys live so long after the last write; above any expiry."""
_TRIES = 16


async def execute(tx: Client) -> list[Any]:
    """End a transaction.

    Raises:
        OutOfMemoryError: Redis has no room, whether it says so of a command or of the whole.
    """
    try:
        replies: list[Any] = await tx.execute()
    except ExecAbortError as exc:
        if "OOM" in str(exc):
            raise OutOfMemoryError(str(exc)) from exc
        raise
    return replies


async def retrying(attempt: Callable[[], Awaitable[T]]) -> T:
    """Run an optimistic transaction until it is not disturbed, a bounded number of times.

    Raises:
        StoreUnavailable: it was disturbed every time.
    """
    for _ in range(_TRIES - 1):
        with suppress(WatchError):
            return await attempt()
    try:
        return await attempt()
    except WatchError as exc:
        raise StoreUnavailable("too many writers at once") from exc


def renew(tx: Client, names: TenantKeys, now: float, *fields: str | int) -> None:
    """Write fields of a tenant's meta, and let it live for the horizon from now on."""
    tx.execute_command("HSET", names.meta, *fields, "renew", now + DAY)
    tx.execute_command("PEXPIRE", names.meta, HORIZON_MS)


def text(raw: bytes | None) -> str | None:
    """Decode a reply that may be absent."""
    return raw.decode() if raw is not None else None


async def current_epoch(client: Client, names: TenantKeys) -> str | None:
    """Read a tenant's epoch; None when it has none."""
    return text(await client.execute_command("HGET", names.meta, "epoch"))
