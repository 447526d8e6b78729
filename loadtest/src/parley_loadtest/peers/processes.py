"""Processes of peers: started on some cores, waited for, measured, ended."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import psutil

from parley_loadtest.target import NoTarget

_STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.25


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Have what is started in the block run on these cores; then this thread is free again."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def process(
    command: Sequence[str], *, port: int, env: Mapping[str, str], log: Path, seconds: float
) -> AsyncIterator[int]:
    """Run a server until the block ends; its pid, once its port answers. Raises NoTarget."""
    with log.open("ab") as output:
        started = subprocess.Popen(  # noqa: ASYNC220, S603 - once, before anything is measured
            command,
            env={**os.environ, **env},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        await _answers(started, port, seconds, log)
        yield started.pid
    finally:
        children = []
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(started.pid).children(recursive=True)
        started.terminate()
        try:
            await asyncio.to_thread(started.wait, _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            started.kill()
            await asyncio.to_thread(started.wait)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


async def _answers(started: subprocess.Popen[bytes], port: int, seconds: float, log: Path) -> None:
    try:
        async with asyncio.timeout(seconds):
            while True:
                if started.poll() is not None:
                    raise NoTarget(f"a server has ended: {_last_lines(log)}")
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        raise NoTarget(
            f"nothing listens on port {port} after {seconds:g} s: {_last_lines(log)}"
        ) from None


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def resident(pids: Mapping[str, int]) -> float:
    """MiB that processes hold in memory, children included."""
    total = 0
    for pid in pids.values():
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(pid)
            for one in (parent, *parent.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    total += one.memory_info().rss
    return total / 2**20
