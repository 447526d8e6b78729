"""What only the log in memory has: a clock of its own, and switches for tests."""

from __future__ import annotations

import asyncio

import pytest

from parley_session.runs.log import LogEntry, LogLimits, LogMissing, LogUnavailable
from parley_session.runs.memory_log import MemoryRunLog


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


async def test_a_stream_expires_by_the_clock_unless_it_is_renewed() -> None:
    clock = Clock()
    log = MemoryRunLog(LogLimits(ttl_seconds=10), clock)
    kept, lost = await log.create("kept", 1), await log.create("lost", 1)
    clock.time += 9
    await log.renew(kept)
    clock.time += 1
    assert len(await log.read(kept)) == 1
    with pytest.raises(LogMissing):
        await log.read(lost)


async def test_followers_are_told_of_expiry_wiping_and_absence() -> None:
    clock = Clock()
    log = MemoryRunLog(LogLimits(ttl_seconds=10), clock)

    async def follow(stream: str) -> list[LogEntry]:
        return [entry async for entry in log.follow(stream)]

    async def ends(change: object) -> type[BaseException]:
        stream = await log.create(f"run-{change}", 1)
        task = asyncio.create_task(follow(stream))
        await asyncio.sleep(0)
        if change == "expiry":
            clock.time += 10
            log.sweep()
        elif change == "wipe":
            log.wipe()
        else:
            log.away = True
        with pytest.raises((LogMissing, LogUnavailable)) as end:
            await task
        log.away = False
        return end.type

    assert await ends("expiry") is LogMissing
    assert await ends("wipe") is LogMissing
    assert await ends("away") is LogUnavailable


async def test_what_was_written_is_there_when_the_log_is_back() -> None:
    log = MemoryRunLog()
    stream = await log.create("run", 1)
    log.away = True
    with pytest.raises(LogUnavailable):
        await log.append(stream, LogEntry(1, 1, 0, "x"))
    log.away = False
    assert await log.read(stream) == [LogEntry(1, 0, 0)]
