"""What only the log on Redis can get wrong: expiry, eviction, connections, faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from redis import Redis

from parley_kit.ids import uuid7
from parley_session.runs.log import LogEntry, LogFenced, LogLimits, LogMissing, LogUnavailable
from parley_session.runs.redis_client import RedisLogOptions
from parley_session.runs.redis_log import RedisRunLog
from support.poll import until
from support.servers import ValkeyServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
FOLLOWERS = 60
BOUND = 0.5


@pytest.fixture
def options(valkey_server: ValkeyServer) -> RedisLogOptions:
    limits = LogLimits(ttl_seconds=60)
    return RedisLogOptions(valkey_server.url, limits, command_seconds=BOUND, check_seconds=0.2)


@pytest.fixture
async def log(options: RedisLogOptions) -> AsyncIterator[RedisRunLog]:
    opened = RedisRunLog(options)
    yield opened
    await opened.close()


def ask(server: ValkeyServer, *command: str | int) -> object:
    """One command, over a connection of its own."""
    with Redis.from_url(server.url, retry=None) as client:
        return client.execute_command(*command)


async def asked(server: ValkeyServer, *command: str | int) -> object:
    return await asyncio.to_thread(ask, server, *command)


async def collect(log: RedisRunLog, stream: str, into: list[LogEntry]) -> None:
    async for entry in log.follow(stream):
        into.append(entry)  # noqa: PERF401 (seen by others as it grows)


# keys and expiry --------------------------------------------------------------


async def test_a_stream_has_its_expiry_from_its_first_entry_on(
    log: RedisRunLog, valkey_server: ValkeyServer
) -> None:
    run = uuid7()
    stream = await log.create(run, 3)
    key = f"parley:log:{{{run}}}:3"
    assert 50_000 < int(str(await asked(valkey_server, "PTTL", key))) <= 60_000
    await asked(valkey_server, "PEXPIRE", key, 1000)
    await log.append(stream, LogEntry(3, 1, 0, "x"))
    assert int(str(await asked(valkey_server, "PTTL", key))) <= 1000
    await log.renew(stream)
    assert 50_000 < int(str(await asked(valkey_server, "PTTL", key))) <= 60_000


async def test_an_expired_stream_is_missing_for_all(
    log: RedisRunLog, valkey_server: ValkeyServer
) -> None:
    run = uuid7()
    stream = await log.create(run, 1)
    seen: list[LogEntry] = []
    follower = asyncio.create_task(collect(log, stream, seen))
    await until(lambda: seen)
    await asked(valkey_server, "PEXPIRE", f"parley:log:{{{run}}}:1", 1)
    with pytest.raises(LogMissing):
        async with asyncio.timeout(5):
            await follower
    with pytest.raises(LogMissing):
        await log.append(stream, LogEntry(1, 1, 0, "x"))


async def test_an_entry_in_an_unknown_format_fails_its_readers_alone(
    log: RedisRunLog, valkey_server: ValkeyServer
) -> None:
    run = uuid7()
    odd, plain = await log.create(run, 1), await log.create(uuid7(), 1)
    seen: list[LogEntry] = []
    followers = [asyncio.create_task(collect(log, stream, seen)) for stream in (odd, plain)]
    await until(lambda: len(seen) == 2)
    await asked(valkey_server, "XADD", f"parley:log:{{{run}}}:1", "1-1", "e", "?")
    with pytest.raises(LogUnavailable, match="unknown format"):
        await followers[0]
    await log.append(plain, LogEntry(1, 1, 0, last=True))
    await followers[1]


# the server's policy ----------------------------------------------------------


async def test_a_server_that_evicts_is_refused_by_name(
    log: RedisRunLog, valkey_server: ValkeyServer
) -> None:
    await asked(valkey_server, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(LogUnavailable, match="allkeys-lru, it must be noeviction"):
        await log.ping()
    await asked(valkey_server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    await log.ping()


async def test_a_server_that_does_not_say_its_policy_must_be_trusted(
    options: RedisLogOptions, valkey_server: ValkeyServer
) -> None:
    rules = ("on", ">secret", "~*", "+@all", "-info", "-config")
    await asked(valkey_server, "ACL", "SETUSER", "app", *rules)
    url = valkey_server.url.replace("redis://", "redis://app:secret@")
    for trust in (False, True):
        log = RedisRunLog(replace(options, url=url, trust_policy=trust))
        try:
            if trust:
                await log.ping()
                assert await log.create(uuid7(), 1)
            else:
                with pytest.raises(LogUnavailable, match="does not say"):
                    await log.ping()
        finally:
            await log.close()


async def test_a_wrong_password_is_unavailable_and_not_told(
    options: RedisLogOptions, valkey_server: ValkeyServer
) -> None:
    url = valkey_server.url.replace("redis://", "redis://app:wrong-secret@")
    log = RedisRunLog(replace(options, url=url))
    with pytest.raises(LogUnavailable) as failure:
        await log.ping()
    await log.close()
    assert "wrong-secret" not in str(failure.value)


async def test_a_full_server_is_unavailable_and_loses_nothing(
    log: RedisRunLog, valkey_server: ValkeyServer
) -> None:
    stream = await log.create(uuid7(), 1)
    await asked(valkey_server, "CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(LogUnavailable, match="full"):
        await log.append(stream, LogEntry(1, 1, 0, "x"))
    with pytest.raises(LogUnavailable):
        await log.create(uuid7(), 1)
    await asked(valkey_server, "CONFIG", "SET", "maxmemory", "0")
    assert await log.read(stream) == [LogEntry(1, 0, 0)]
    await log.append(stream, LogEntry(1, 1, 0, "x"))


# connections ------------------------------------------------------------------


async def test_many_followers_share_few_connections(
    log: RedisRunLog, options: RedisLogOptions, valkey_server: ValkeyServer
) -> None:
    streams = [await log.create(uuid7(), 1) for _ in range(FOLLOWERS)]
    seen: list[LogEntry] = []
    tasks = [asyncio.create_task(collect(log, stream, seen)) for stream in streams]
    await until(lambda: len(seen) == FOLLOWERS)

    def clients() -> str:
        return str(ask(valkey_server, "CLIENT", "LIST"))

    blocked = (await asyncio.to_thread(clients)).count("cmd=xread")
    assert blocked <= options.follow_connections
    await asyncio.gather(*(log.append(s, LogEntry(1, 1, 0, last=True)) for s in streams))
    await asyncio.gather(*tasks)
    assert len(seen) == 2 * FOLLOWERS


async def test_a_log_that_is_closed_ends_those_who_wait(options: RedisLogOptions) -> None:
    log = RedisRunLog(options)
    stream = await log.create(uuid7(), 1)
    seen: list[LogEntry] = []
    follower = asyncio.create_task(collect(log, stream, seen))
    await until(lambda: seen)
    await log.close()
    with pytest.raises(LogUnavailable):
        await follower
    with pytest.raises(LogUnavailable):
        await log.append(stream, LogEntry(1, 1, 0, "x"))


async def test_writes_beyond_the_bound_are_refused_at_once(options: RedisLogOptions) -> None:
    log = RedisRunLog(replace(options, max_waiting_writes=10))
    stream = await log.create(uuid7(), 1)
    results = await asyncio.gather(
        *(log.append(stream, LogEntry(1, n, 0, "x")) for n in range(1, 31)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None)] * 10 + [LogUnavailable] * 20
    assert len(await log.read(stream)) == 11
    await log.close()


# faults -----------------------------------------------------------------------


async def test_a_server_killed_in_mid_stream_is_unavailable_and_comes_back_empty(
    log: RedisRunLog, valkey_server: ValkeyServer
) -> None:
    streams = [await log.create(uuid7(), 1) for _ in range(4)]
    acknowledged: dict[str, int] = dict.fromkeys(streams, 0)
    seen: dict[str, list[LogEntry]] = {stream: [] for stream in streams}

    async def write(stream: str) -> None:
        while True:
            await log.append(stream, LogEntry(1, acknowledged[stream] + 1, 0, "x"))
            acknowledged[stream] += 1

    writers = [asyncio.create_task(write(stream)) for stream in streams]
    readers = [asyncio.create_task(collect(log, s, into)) for s, into in seen.items()]
    await until(lambda: all(len(entries) > 10 for entries in seen.values()))
    await asyncio.to_thread(valkey_server.kill)
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*writers, *readers, return_exceptions=True)
    assert {type(end) for end in ends} == {LogUnavailable}
    with pytest.raises(LogUnavailable):
        await log.create(uuid7(), 1)
    for stream, entries in seen.items():
        numbers = [entry.number for entry in entries]
        assert numbers == list(range(len(numbers))), "nobody sees a gap"
        # At most one more than was acknowledged: the write whose answer was lost.
        assert len(numbers) - 1 <= acknowledged[stream] + 1

    await asyncio.to_thread(valkey_server.start)
    for call in (
        log.append(streams[0], LogEntry(1, 199_999, 0, "x")),
        log.fence(streams[0], 2),
        log.renew(streams[0]),
        collect(log, streams[0], []),
    ):
        with pytest.raises(LogMissing):
            await call
    anew = await log.create(streams[0].rpartition(":")[0], 2)
    await log.append(anew, LogEntry(2, 1, 0, "whole", last=True))
    read: list[LogEntry] = []
    await collect(log, anew, read)
    assert [entry.text for entry in read] == ["", "whole"]


async def test_a_server_that_is_stuck_is_unavailable_within_the_bound(
    log: RedisRunLog, valkey_server: ValkeyServer
) -> None:
    stream = await log.create(uuid7(), 1)
    calls: list[Callable[[], object]] = [
        lambda: log.append(stream, LogEntry(1, 1, 0, "x")),
        lambda: log.renew(stream),
        lambda: log.read(stream),
        lambda: log.create(uuid7(), 1),
        lambda: log.delete(stream),
        log.ping,
        lambda: collect(log, stream, []),
    ]
    valkey_server.pause()
    try:
        async with asyncio.timeout(5):
            results = await asyncio.gather(
                *(call() for call in calls),  # type: ignore[call-overload]
                return_exceptions=True,
            )
    finally:
        valkey_server.resume()
    assert {type(result) for result in results} == {LogUnavailable}

    async def back() -> bool:
        try:
            await log.ping()
        except LogUnavailable:
            return False
        return True

    await until(back)


async def test_an_append_whose_answer_was_lost_is_not_sent_again(
    log: RedisRunLog, valkey_server: ValkeyServer
) -> None:
    stream = await log.create(uuid7(), 1)
    await log.append(stream, LogEntry(1, 1, 0, "x"))
    valkey_server.pause()
    try:
        with pytest.raises(LogUnavailable):
            await log.append(stream, LogEntry(1, 2, 1, "y"))
    finally:
        valkey_server.resume()

    async def settled() -> bool:
        # The stuck server may yet read what it was sent, once.
        with suppress(LogFenced, LogUnavailable):
            await log.append(stream, LogEntry(1, 2, 1, "y"))
        return [entry.number for entry in await log.read(stream)] == [0, 1, 2]

    await until(settled)


async def test_a_follower_waits_through_silence(log: RedisRunLog, options: RedisLogOptions) -> None:
    stream = await log.create(uuid7(), 1)
    seen: list[LogEntry] = []
    follower = asyncio.create_task(collect(log, stream, seen))
    await until(lambda: seen)
    # Longer than the lane's own rhythm, so that it has looked for the stream meanwhile.
    done, _ = await asyncio.wait((follower,), timeout=3 * options.check_seconds)
    assert not done
    await log.append(stream, LogEntry(1, 1, 0, last=True))
    await follower
