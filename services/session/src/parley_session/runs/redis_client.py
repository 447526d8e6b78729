"""The run log's Redis: its settings, its clients, and what its errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from parley_session.cancellation import CancellationWatch
from parley_session.runs.log import LogFenced, LogLimits, LogUnavailable


@dataclass(frozen=True, slots=True)
class RedisLogOptions:
    """Where the log is, and its bounds."""

    url: str
    limits: LogLimits = field(default_factory=LogLimits)
    key_prefix: str = "parley:log:"
    # One command or pipeline, in whole.
    command_seconds: float = 3.0
    max_connections: int = 16
    # Writes waiting for the connection; more are refused.
    max_waiting_writes: int = 10_000
    # Connections that wait for entries on behalf of all followers.
    follow_connections: int = 2
    # How often streams that are followed and silent are looked for.
    check_seconds: float = 2.0
    # Accept a server that will not say its eviction policy (some managed ones).
    trust_policy: bool = False


def open_client(options: RedisLogOptions, *, connections: int) -> Redis:
    """Open a client that never repeats a command by itself; it connects when first used.

    Its commands have no bound of their own: they are made within `bounded`.
    """
    pool = BlockingConnectionPool.from_url(
        options.url,
        max_connections=connections,
        timeout=options.command_seconds,
        # With a bound the client sends through `asyncio.wait_for`, which on Python 3.11 can
        # lose a cancellation.
        socket_timeout=None,
        socket_connect_timeout=options.command_seconds,
        # An append that is repeated after it was applied looks like one that was fenced.
        retry=Retry(NoBackoff(), 0),
        # Otherwise each new connection looks up the library's version in its files.
        driver_info=None,
        protocol=2,
    )
    return Redis.from_pool(pool)


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """Bound what is done in time, and turn the client's errors into the log's."""
    caller = CancellationWatch()
    try:
        async with asyncio.timeout(seconds):
            yield
    except (exceptions.RedisError, TimeoutError, OSError) as error:
        caller.check()
        raise translate(error) from error
    except RuntimeError as error:
        if not _is_closed_transport(error):
            raise
        caller.check()
        raise translate(error) from error
    caller.check()


def _is_closed_transport(error: RuntimeError) -> bool:
    """Whether this is uvloop's word for writing to a connection that the other end has reset.

    asyncio's own transports raise an OSError; the client translates that, and not this.
    """
    return "handler is closed" in str(error)


def translate(error: BaseException) -> LogFenced | LogUnavailable:
    """What an error of the client means to a writer or reader."""
    if isinstance(error, exceptions.ResponseError) and "equal or smaller" in str(error):
        return LogFenced("a later attempt has written to the log")
    if isinstance(error, exceptions.OutOfMemoryError):
        return LogUnavailable("the log's server is full")
    return LogUnavailable(f"the log's server: {type(error).__name__}")
