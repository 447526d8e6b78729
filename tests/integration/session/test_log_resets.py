"""The run log's connections are reset under uvloop, as services run it."""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid

import pytest
import uvloop

from parley_session.runs.log import LogEntry, LogUnavailable
from parley_session.runs.redis_client import RedisLogOptions
from parley_session.runs.redis_log import RedisRunLog
from support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.integration
WRITERS, RESETS = 16, 40


def test_a_reset_is_a_log_that_is_away_and_nothing_else(redis_url: str) -> None:
    async def write(log: RedisRunLog, writer: int, resets: TcpProxy) -> int:
        """Write until the last reset; how often the log was away."""
        refused = 0
        for number in itertools.count():
            if resets.counts.resets >= RESETS:
                break
            try:
                stream = await log.create(f"reset-{uuid.uuid4().hex}-{writer}", number + 1)
                await log.append(stream, LogEntry(number + 1, 1, 0, "text"))
                await log.ping()
                await log.delete(stream)
            except LogUnavailable:
                refused += 1
        return refused

    async def all_of_it() -> int:
        async with TcpProxy(redis_url.removeprefix("redis://").split("/")[0]) as proxy:
            log = RedisRunLog(RedisLogOptions(url=f"redis://{proxy.address}/0"))
            try:
                async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                    writers = [group.create_task(write(log, n, proxy)) for n in range(WRITERS)]
                    while proxy.counts.resets < RESETS:
                        # Both while commands are on their way and while connections are idle.
                        proxy.reset_after(random.choice((0, 0, 50, 500)))
                        await asyncio.sleep(0.01)
            finally:
                await log.close()
            return sum(writer.result() for writer in writers)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        refused = runner.run(all_of_it())
    assert refused > 0
