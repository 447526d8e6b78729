"""A machine that follows a leader works until the leader has gone, and no longer."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from parley_inference import follower
from parley_inference.config import Settings
from parley_inference.follower import Follower
from support.poll import until


class FakePart:
    """A part that is loaded when it is told to."""

    def __init__(self) -> None:
        self.may_start = asyncio.Event()
        self.alive = False
        self.stopped = False

    @property
    def progress(self) -> str:
        return "" if self.alive else "loading the model for 1 s"

    async def start(self) -> None:
        await self.may_start.wait()
        self.alive = True

    async def stop(self) -> None:
        self.alive = False
        self.stopped = True


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "_LOOK_SECONDS", 0.02)


@pytest.fixture(name="leader")
async def _leader() -> AsyncIterator[asyncio.Server]:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    yield server
    server.close()
    await server.wait_closed()


def following(leader: asyncio.Server, part: FakePart, **settings: object) -> Follower:
    values: dict[str, object] = {
        "model": "m",
        "admin_port": 0,
        "nodes": 2,
        "node_rank": 1,
        "pipeline_parallel_size": 2,
        "leader_address": "127.0.0.1",
        "leader_port": leader.sockets[0].getsockname()[1],
    }
    return Follower(Settings.model_validate(values | settings), part)


async def readiness(one: Follower) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", one.admin_port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n")
    answer = (await asyncio.wait_for(reader.read(), 5)).decode()
    writer.close()
    await writer.wait_closed()
    return answer.rpartition("\r\n\r\n")[2].strip()


async def test_it_is_ready_once_it_has_joined(leader: asyncio.Server) -> None:
    part = FakePart()
    one = following(leader, part)
    await one.start()
    loading = asyncio.create_task(one.load())
    assert await readiness(one) == "not ready: loading the model for 1 s"
    part.may_start.set()
    await loading
    assert await readiness(one) == "ready"
    leader.close()
    await one.stop()
    assert part.stopped


async def test_it_ends_when_the_leader_has_gone(leader: asyncio.Server) -> None:
    part = FakePart()
    part.may_start.set()
    one = following(leader, part)
    await one.start()
    await one.load()
    watching = asyncio.create_task(one.watch_engine())
    leader.close()
    async with asyncio.timeout(5):
        await watching
    assert (await readiness(one)).startswith("not ready")
    await one.stop()


async def test_it_ends_when_its_own_part_has(leader: asyncio.Server) -> None:
    part = FakePart()
    part.may_start.set()
    one = following(leader, part)
    await one.start()
    await one.load()
    part.alive = False
    async with asyncio.timeout(5):
        await one.watch_engine()
    await one.stop()


async def test_asked_to_stop_it_works_on_while_the_leader_ends_its_answers(
    leader: asyncio.Server,
) -> None:
    part = FakePart()
    part.may_start.set()
    one = following(leader, part, shutdown_grace_seconds=60)
    await one.start()
    await one.load()
    seen = 0

    def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        writer.close()

    leader.close()
    again = await asyncio.start_server(look, "127.0.0.1", one._settings.leader_port)
    stopping = asyncio.create_task(one.stop())
    await until(lambda: seen >= 3, 5, "three looks at the leader")
    assert part.alive
    assert not stopping.done()
    again.close()
    await again.wait_closed()
    async with asyncio.timeout(5):
        await stopping
    assert part.stopped


async def test_a_leader_that_stays_is_waited_for_within_the_grace_alone(
    leader: asyncio.Server,
) -> None:
    part = FakePart()
    part.may_start.set()
    one = following(leader, part, shutdown_grace_seconds=0.1)
    await one.start()
    await one.load()
    async with asyncio.timeout(5):
        await one.stop()
    assert part.stopped
