"""Waiting for a condition, bounded: what tests do instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")

TIMEOUT = 5.0
_FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.05


class NeverHappenedError(AssertionError):
    """The condition did not come true in time."""


@overload
async def until(
    predicate: Callable[[], Awaitable[T | None]],
    timeout: float = ...,
    what: str = ...,
    longest_pause: float = ...,
) -> T: ...


@overload
async def until(
    predicate: Callable[[], T | None],
    timeout: float = ...,
    what: str = ...,
    longest_pause: float = ...,
) -> T: ...


async def until(
    predicate: Callable[[], T | Awaitable[T | None] | None],
    timeout: float = TIMEOUT,
    what: str = "",
    longest_pause: float = LONGEST_PAUSE,
) -> T:
    """Wait until ``predicate()`` (plain or async) is true, and return what it gave.

    An AssertionError that it raises counts as "not yet" and is the cause of the
    failure, if it comes to that. `longest_pause`: seconds between two looks, for looks that
    cost something.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        last: AssertionError | None = None
        try:
            result = predicate()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return cast(T, result)
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise NeverHappenedError(_sentence(predicate, timeout, what)) from last
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest_pause)


def until_sync(
    predicate: Callable[[], T],
    timeout: float = TIMEOUT,
    what: str = "",
    longest_pause: float = LONGEST_PAUSE,
) -> T:
    """Do as ``until`` where no event loop runs."""
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        last: AssertionError | None = None
        try:
            if result := predicate():
                return result
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise NeverHappenedError(_sentence(predicate, timeout, what)) from last
        time.sleep(pause)
        pause = min(2 * pause, longest_pause)


def _sentence(predicate: object, timeout: float, what: str) -> str:
    return f"not within {timeout} s: {what or getattr(predicate, '__qualname__', predicate)}"
