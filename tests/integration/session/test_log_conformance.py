"""What every `RunLog` does: in memory, and on a real Redis or Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from parley_kit.ids import uuid7
from parley_session.runs.log import LogEntry, LogFenced, LogFull, LogMissing, RunLog
from support.poll import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
WRITERS = 24
# More than any buffer between the log and one of its followers.
MANY = 3000


def text(number: int, attempt: int = 1, **fields: object) -> LogEntry:
    entry = LogEntry(attempt, number, number, "é✓"[number % 2], (number, 2**32 - 1))
    return entry if not fields else LogEntry(attempt, number, number, **fields)  # type: ignore[arg-type]


def end(number: int, attempt: int = 1) -> LogEntry:
    return LogEntry(attempt, number, 0, last=True)


async def collect(log: RunLog, stream: str) -> list[LogEntry]:
    return [entry async for entry in log.follow(stream)]


async def outcomes(*writes: object) -> Sequence[str]:
    results = await asyncio.gather(*writes, return_exceptions=True)  # type: ignore[call-overload]
    return ["ok" if result is None else type(result).__name__ for result in results]


async def test_it_answers(run_log: RunLog) -> None:
    await run_log.ping()


# writing ----------------------------------------------------------------------


async def test_a_stream_opens_with_the_attempt_and_holds_what_is_appended(run_log: RunLog) -> None:
    stream = await run_log.create(uuid7(), 1)
    entries = [text(1), text(2), LogEntry(1, 3, 9, "end", (4,), "stop"), end(4)]
    for entry in entries:
        await run_log.append(stream, entry)
    assert await run_log.read(stream) == [LogEntry(1, 0, 0), *entries]


async def test_a_stream_is_named_after_its_run_and_attempt(run_log: RunLog) -> None:
    run = uuid7()
    assert await run_log.create(run, 1) == f"{run}:1"
    assert await run_log.create(run, 2) == f"{run}:2"
    assert await run_log.read(f"{run}:1") == [LogEntry(1, 0, 0)]


async def test_a_stream_is_created_once(run_log: RunLog) -> None:
    run = uuid7()
    results = await asyncio.gather(
        *(run_log.create(run, 1) for _ in range(WRITERS)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, LogFenced)]
    assert len(refused) == WRITERS - 1
    stream = f"{run}:1"
    await run_log.append(stream, text(1))
    with pytest.raises(LogFenced):
        await run_log.create(run, 1)
    assert await run_log.read(stream) == [LogEntry(1, 0, 0), text(1)]


async def test_appends_of_one_tick_keep_their_order_and_each_its_own_outcome(
    run_log: RunLog,
) -> None:
    first, second = await run_log.create(uuid7(), 1), await run_log.create(uuid7(), 1)
    done = await outcomes(
        run_log.append(first, text(1)),
        run_log.append("none:1", text(1)),
        run_log.append(second, text(5)),
        run_log.append(first, text(2)),
        run_log.append(second, text(5)),
        run_log.append(first, text(9, text="x" * 2000)),
        run_log.append(first, text(3)),
    )
    assert done == ["ok", "LogMissing", "ok", "ok", "LogFenced", "LogFull", "ok"]
    assert await run_log.read(first) == [LogEntry(1, 0, 0), text(1), text(2), text(3)]
    assert await run_log.read(second) == [LogEntry(1, 0, 0), text(5)]


async def test_many_appends_at_once_arrive_in_order(run_log: RunLog) -> None:
    stream = await run_log.create(uuid7(), 1)
    await asyncio.gather(*(run_log.append(stream, text(n % 900)) for n in range(1, 900)))
    assert [entry.number for entry in await run_log.read(stream)] == list(range(900))


async def test_ids_only_grow(run_log: RunLog) -> None:
    stream = await run_log.create(uuid7(), 2)
    await run_log.append(stream, text(5, 2))
    done = await outcomes(
        *(run_log.append(stream, text(n, a)) for n, a in ((5, 2), (4, 2), (9, 1)))
    )
    assert done == ["LogFenced"] * 3
    assert [entry.number for entry in await run_log.read(stream)] == [0, 5]


# the fence --------------------------------------------------------------------


async def test_a_fence_refuses_every_older_attempt(run_log: RunLog) -> None:
    stream = await run_log.create(uuid7(), 1)
    await run_log.append(stream, text(1))
    await run_log.fence(stream, 2)
    done = await outcomes(
        run_log.append(stream, text(2)),
        run_log.append(stream, end(2**63)),
        run_log.fence(stream, 1),
        run_log.fence(stream, 2),
    )
    assert done == ["LogFenced"] * 4
    await run_log.append(stream, text(1, 2))
    assert [(entry.attempt, entry.number) for entry in await run_log.read(stream)] == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]


async def test_what_a_taker_reads_after_its_fence_is_all_there_will_be(run_log: RunLog) -> None:
    stream = await run_log.create(uuid7(), 1)
    written: list[LogEntry] = []

    async def hold() -> None:
        for number in range(1, 4000):
            await run_log.append(stream, entry := text(number % 900 + number // 900 * 1000))
            written.append(entry)

    holder = asyncio.create_task(hold())
    await until(lambda: len(written) > 20)
    await run_log.fence(stream, 2)
    read = await run_log.read(stream)
    with pytest.raises((LogFenced, LogFull)):
        await holder
    assert await run_log.read(stream) == read
    assert [entry for entry in read if entry.number] == written


async def test_of_many_takers_only_the_latest_can_write(run_log: RunLog) -> None:
    stream = await run_log.create(uuid7(), 1)
    await outcomes(*(run_log.fence(stream, attempt) for attempt in range(2, WRITERS)))
    writes = (run_log.append(stream, text(1, attempt)) for attempt in range(1, WRITERS))
    assert await outcomes(*writes) == ["LogFenced"] * (WRITERS - 2) + ["ok"]


# bounds, absence --------------------------------------------------------------


async def test_a_full_log_refuses_and_keeps_what_it_has(run_log: RunLog) -> None:
    stream = await run_log.create(uuid7(), 1)
    fits = LogEntry(1, 1, 0, "é" * 500)
    await run_log.append(stream, fits)
    for entry in (LogEntry(1, 2, 1000, "x"), LogEntry(1, 5001, 0, "x")):
        with pytest.raises(LogFull):
            await run_log.append(stream, entry)
    last = LogEntry(1, 2**64 - 1, 1000, last=True)
    await run_log.append(stream, last)
    assert await run_log.read(stream) == [LogEntry(1, 0, 0), fits, last]


async def test_a_stream_that_is_missing_is_said_to_be_and_not_made(run_log: RunLog) -> None:
    stream = f"{uuid7()}:1"
    done = await outcomes(
        run_log.append(stream, text(1)),
        run_log.fence(stream, 2),
        run_log.renew(stream),
        run_log.read(stream),
        collect(run_log, stream),
    )
    assert done == ["LogMissing"] * 5
    await run_log.delete(stream)


async def test_a_deleted_stream_is_gone_for_writers_too(run_log: RunLog) -> None:
    stream = await run_log.create(uuid7(), 1)
    await run_log.renew(stream)
    await run_log.delete(stream)
    await run_log.delete(stream)
    assert await outcomes(run_log.append(stream, text(1)), run_log.read(stream)) == [
        "LogMissing",
        "LogMissing",
    ]


# following --------------------------------------------------------------------


async def test_followers_read_the_same_whenever_they_come(run_log: RunLog) -> None:
    stream = await run_log.create(uuid7(), 1)
    followers = []
    for number in range(1, 20):
        followers += [asyncio.create_task(collect(run_log, stream)) for _ in range(3)]
        await run_log.append(stream, text(number))
        if number == 10:
            await run_log.fence(stream, 2)
            break
    for number in range(1, 20):
        followers.append(asyncio.create_task(collect(run_log, stream)))
        await run_log.append(stream, text(number, 2))
    await run_log.append(stream, end(20, 2))
    followers.append(asyncio.create_task(collect(run_log, stream)))
    entries = await run_log.read(stream)
    assert entries[-1].last
    for read in await asyncio.gather(*followers):
        assert read == entries


async def test_a_follower_goes_on_from_where_it_was(run_log: RunLog) -> None:
    stream = await run_log.create(uuid7(), 1)
    for number in range(1, 4):
        await run_log.append(stream, text(number))
    await run_log.fence(stream, 2)
    follower = run_log.follow(stream, (1, 2))
    assert [(await anext(follower)).place for _ in range(2)] == [(1, 3), (2, 0)]
    # Nothing is there yet beyond the last entry: that is no missing stream.
    later = asyncio.create_task(anext(run_log.follow(stream, (2, 0))))
    await run_log.append(stream, text(1, 2))
    assert (await anext(follower)).place == (await later).place == (2, 1)
    await follower.aclose()
    with pytest.raises(LogMissing):
        await anext(run_log.follow(f"{uuid7()}:1", (1, 2)))


async def test_many_streams_are_followed_at_once(run_log: RunLog) -> None:
    streams = [await run_log.create(uuid7(), 1) for _ in range(100)]
    followers = [asyncio.create_task(collect(run_log, stream)) for stream in streams]

    async def write(stream: str) -> None:
        for number in range(1, 10):
            await run_log.append(stream, text(number))
        await run_log.append(stream, end(10))

    await asyncio.gather(*(write(stream) for stream in streams))
    for read in await asyncio.gather(*followers):
        assert [entry.number for entry in read] == list(range(11))


async def test_a_follower_that_stops_reading_for_long_misses_nothing(run_log: RunLog) -> None:
    stream = await run_log.create(uuid7(), 1)
    follower = run_log.follow(stream)
    assert (await anext(follower)).number == 0
    waiting = asyncio.create_task(anext(follower))
    await run_log.append(stream, LogEntry(1, 1, 0, "x"))
    assert (await waiting).number == 1
    numbers = range(2, MANY)
    await asyncio.gather(*(run_log.append(stream, LogEntry(1, n, 0, "x")) for n in numbers))
    await run_log.append(stream, end(MANY))
    assert [entry.number async for entry in follower] == [*numbers, MANY]


async def test_a_follower_is_told_when_its_stream_goes_away(run_log: RunLog) -> None:
    kept, gone = await run_log.create(uuid7(), 1), await run_log.create(uuid7(), 1)
    seen: list[str] = []

    async def follow(stream: str) -> None:
        async for entry in run_log.follow(stream):
            seen.append(f"{stream} {entry.number}")  # noqa: PERF401 (seen as it grows)

    tasks = [asyncio.create_task(follow(stream)) for stream in (kept, gone)]
    await until(lambda: len(seen) == 2)
    await run_log.delete(gone)
    with pytest.raises(LogMissing):
        async with asyncio.timeout(5):
            await tasks[1]
    await run_log.append(kept, end(1))
    await tasks[0]


async def test_a_follower_that_leaves_disturbs_nobody(run_log: RunLog) -> None:
    stream = await run_log.create(uuid7(), 1)
    leaving = [asyncio.create_task(collect(run_log, stream)) for _ in range(10)]
    staying = asyncio.create_task(collect(run_log, stream))
    await run_log.append(stream, text(1))
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    assert all(task.cancelled() for task in leaving)
    await run_log.append(stream, end(2))
    assert [entry.number for entry in await staying] == [0, 1, 2]


async def test_a_follower_that_waits_where_another_has_just_left_misses_nothing(
    run_log: RunLog,
) -> None:
    for _ in range(20):
        stream = await run_log.create(uuid7(), 1)
        await run_log.append(stream, text(1))
        behind, ahead = run_log.follow(stream), run_log.follow(stream)
        read = [(await anext(behind)).number for _ in range(2)]
        for number in (2, 3, 4):
            await run_log.append(stream, text(number))
        while (await anext(ahead)).number < 4:
            pass
        waiting = asyncio.create_task(anext(ahead))
        # The one ahead waits on the shared connection, leaves, and the other joins in its
        # place with an older position while more is written.
        await asyncio.wait((waiting,), timeout=0.005)
        waiting.cancel()
        await asyncio.wait((waiting,))
        joining = asyncio.create_task(anext(behind))
        await asyncio.gather(*(run_log.append(stream, text(number)) for number in (5, 6)))
        read.append((await joining).number)
        await run_log.append(stream, end(7))
        read += [entry.number async for entry in behind]
        assert read == list(range(8))
