"""What a fault leaves behind is found, each kind planted once; and nothing else is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from parley_kit.tasks import TASK_COUNTS
from support.echo import echo_server, text
from support.footprints import (
    CONNECTION_SLACK,
    JOB,
    JOBS,
    POOL_SLACK,
    PROBE,
    PROBES,
    Footprint,
    Footprints,
    footprint,
    leaks,
    nothing_left,
)
from support.poll import NeverHappenedError, until

# Nothing that was planted goes by itself.
SOON = 0.3
SELF = "the part"


def samples() -> dict[str, float]:
    """This loop's tasks, as /metrics tells them."""
    TASK_COUNTS.look()
    return {
        f'{sample.name}{{kind="{sample.labels["kind"]}"}}': sample.value
        for family in TASK_COUNTS.collect()
        for sample in family.samples
    }


def now(ports: dict[int, str] | None = None) -> Footprints:
    """What this process holds."""
    return {SELF: footprint(os.getpid(), samples(), ports or {})}


def look(ports: dict[int, str] | None = None) -> Callable[[], Awaitable[Footprints]]:
    async def looking() -> Footprints:
        return now(ports)

    return looking


async def found(before: Footprints, ports: dict[int, str] | None = None) -> str:
    """What is said of a leak."""
    with pytest.raises(NeverHappenedError) as failure:
        await nothing_left(before, look(ports), timeout=SOON)
    return str(failure.value.__cause__)


# tasks ------------------------------------------------------------------------


async def test_a_task_that_is_left_over_is_found_by_what_it_runs() -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    before = now()
    task = asyncio.create_task(forgotten())
    assert "forgotten" in await found(before)
    task.cancel()
    await nothing_left(before, look())


async def test_what_is_at_work_now_and_then_is_not_taken_for_one() -> None:
    before = now()
    at_work: list[asyncio.Task[Any]] = []
    looks = 0

    async def work() -> None:
        await asyncio.Event().wait()

    async def looking() -> Footprints:
        nonlocal looks
        looks += 1
        if looks == 1:
            at_work.append(asyncio.create_task(work()))
        elif looks == 3:
            at_work[0].cancel()
            await asyncio.wait(at_work)
        return now()

    await nothing_left(before, looking)
    assert looks == 3


async def test_a_process_may_be_at_each_of_its_periodic_jobs_and_at_none_twice() -> None:
    """As the library of the timers runs them, whose name for it is counted on here."""
    release = asyncio.Event()
    before = now()
    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.start()
    for _ in range(JOBS):
        scheduler.add_job(release.wait)
    await until(lambda: any(JOB in kind and n == JOBS for kind, n in samples().items()))
    await nothing_left(before, look(), timeout=SOON)
    scheduler.add_job(release.wait)
    await until(lambda: any(JOB in kind and n > JOBS for kind, n in samples().items()))
    assert JOB in await found(before)
    release.set()
    await nothing_left(before, look())
    scheduler.shutdown(wait=False)


async def test_different_things_held_at_each_look_are_not_left_behind() -> None:
    before = now()
    looks = 0

    async def looking() -> Footprints:
        nonlocal looks
        looks += 1
        kind = f'parley_asyncio_tasks{{kind="job {looks % 2}"}}'
        return {SELF: footprint(os.getpid(), samples() | {kind: 1.0}, {})}

    await nothing_left(before, looking)
    assert looks == 2


async def test_grpcs_own_waiting_tasks_do_not_count_and_a_call_that_is_served_does() -> None:
    served, release = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, _context: Any) -> Any:
        served.set()
        await release.wait()
        return request

    before = now()
    async with echo_server(say=slow) as server:
        call = asyncio.ensure_future(server.stub.Say(text("hello"), timeout=5))
        await served.wait()
        waiting = [kind for kind in samples() if "AioServer." in kind]
        assert waiting, "gRPC has other names for them now"
        during = await found(before)
        assert not any(kind in during for kind in waiting), during
        assert "slow" in during or "_handle" in during, during
        release.set()
        await call
    await nothing_left(before, look())


# open files -------------------------------------------------------------------


@contextlib.contextmanager
def open_file(folder: Path) -> Iterator[None]:
    with (folder / "left open").open("w"):
        yield


@contextlib.contextmanager
def pipe(_: Path) -> Iterator[None]:
    ends = os.pipe()
    yield
    for end in ends:
        os.close(end)


@contextlib.contextmanager
def eventfd(_: Path) -> Iterator[None]:
    descriptor = os.eventfd(0)
    yield
    os.close(descriptor)


@contextlib.contextmanager
def pair(_: Path) -> Iterator[None]:
    ends = socket.socketpair()
    yield
    for end in ends:
        end.close()


@contextlib.contextmanager
def listener(_: Path) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 0)):
        yield


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (open_file, "left open"),
        (pipe, "pipe"),
        (eventfd, "[eventfd]"),
        (pair, "socket"),
        (listener, "socket"),
    ],
)
async def test_one_descriptor_that_is_left_open_is_found(
    plant: Callable[[Path], contextlib.AbstractContextManager[None]], name: str, tmp_path: Path
) -> None:
    before = now()
    with plant(tmp_path):
        assert name in await found(before)
    await nothing_left(before, look())


@pytest.fixture
async def peer() -> AsyncIterator[int]:
    """A port of this process on which connections are accepted."""
    accepted: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in accepted:
        writer.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("name", "slack"), [("valkey", POOL_SLACK), ("session-1", CONNECTION_SLACK)]
)
async def test_connections_beyond_what_a_pool_may_grow_by_are_found(
    peer: int, name: str, slack: int
) -> None:
    ports = {peer: name}
    before = now(ports)
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", peer)
        writers.append(writer)

    for _ in range(slack):
        await connect()
    held = footprint(os.getpid(), samples(), ports).files
    assert held[f"to {name}"] == slack
    await connect()
    assert f"to {name}" in await found(before, ports)
    for writer in writers:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(("sockets", "found"), [(4, False), (5, True)])
def test_reset_connections_of_a_pool_are_no_leak_and_one_socket_more_is(
    sockets: int, found: bool
) -> None:
    def held(**files: int) -> Footprints:
        return {SELF: Footprint(1, {kind.replace("_", " "): n for kind, n in files.items()}, {})}

    assert bool(leaks(held(to_valkey=4), held(socket=sockets))) == found


async def test_the_connections_of_whoever_looks_are_not_counted(peer: int) -> None:
    before = now({peer: ""})
    _, writer = await asyncio.open_connection("127.0.0.1", peer)
    await until(lambda: now()[SELF].files.get(f"from clients of {peer}"))
    counted = now({peer: ""})[SELF].files
    assert f"from clients of {peer}" not in counted
    writer.close()
    await writer.wait_closed()
    await nothing_left(before, look({peer: ""}))


async def test_a_probe_of_each_replica_may_be_under_way_and_no_more() -> None:
    def held(probes: float) -> Footprints:
        samples = {f"parley_asyncio_tasks{{{PROBE}}}": probes}
        return {SELF: footprint(os.getpid(), samples, {})}

    before = held(0)
    assert not leaks(before, held(PROBES))
    assert PROBE in str(leaks(before, held(PROBES + 1)))


async def test_a_process_that_was_started_since_is_not_held_against_the_old_one() -> None:
    held = now()[SELF]
    older = type(held)(held.pid + 1, {}, {})
    await nothing_left({SELF: older}, look())
