"""The connection to Redis: plain commands, bounded, foreign errors translated.

Commands go through `execute_command`, so that what is sent is what is written
here. A command is tried once more when its pooled connection turns out to be
dead (Redis was restarted), and never after a time-out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis.asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    OutOfMemoryError,
    RedisError,
    WatchError,
)

from parley_cache.store.base import StoreFull, StoreUnavailable

Client = Any
"""A `redis.asyncio.Redis`: its own annotations mix sync and async results."""
Command = tuple[str | int, ...]
"""A command's words."""


def open_client(url: str, *, max_connections: int, connect_seconds: float) -> Client:
    """Make a client; nothing is connected yet. Its callers bound each operation in time.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        max_connections: most connections at once; a caller beyond them waits.
        connect_seconds: longest wait for a free connection, and for connecting.
    """
    pool = redis_asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=connect_seconds,
        socket_connect_timeout=connect_seconds,
        # With a time-out the client sends through `asyncio.wait_for`, which on
        # Python 3.11 loses a cancellation that comes as it ends: a call would
        # outlive its deadline, and a task its cancelling.
        socket_timeout=None,
        # Else the client reads its version from disk at every new connection.
        driver_info=None,
        # A time-out is not retried: it has already cost what the caller allows.
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )
    return redis_asyncio.Redis.from_pool(pool)


@contextmanager
def translated() -> Iterator[None]:
    """Turn what Redis and its client raise into the store's errors.

    A lost race (`WatchError`) passes: who watches decides what to do next.
    """
    try:
        yield
    except WatchError:
        raise
    except (RedisError, OSError, TimeoutError, RuntimeError) as exc:
        if isinstance(exc, RuntimeError) and "handler is closed" not in str(exc):
            # That is uvloop's word for writing to a connection that the other end has
            # reset, where asyncio raises an OSError; any other is a defect.
            raise
        # A pipeline cut off by a cancellation resets its connection, and when
        # that fails too its error takes the place of the cancellation.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from exc
        if isinstance(exc, OutOfMemoryError):
            raise StoreFull("Redis has no memory left") from exc
        raise StoreUnavailable(f"Redis: {type(exc).__name__}") from exc
