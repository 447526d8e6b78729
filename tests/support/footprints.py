"""What processes hold: open files by what they are, asyncio tasks by what they run.

    before = {"session-1": footprint(pid, samples, ports)}
    ...
    await nothing_left(before, look)

Linux alone: it reads `/proc`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from support.poll import until

TASKS = "parley_asyncio_tasks{"
# gRPC's server keeps tasks that wait for the next call of a method, one or two of each: its
# own affair. A call that is served shows as tasks of other kinds.
WAITING_FOR_CALLS = 'kind="AioServer.'
# What is at work now and then, and how often at once: each periodic job of a process; a probe
# of each replica that it calls, which has a deadline.
JOB, JOBS = 'kind="run_coroutine_job"', 6
PROBE, PROBES = 'kind="UnaryUnaryCall._invoke"', 3
PERIODIC = {JOB: JOBS, PROBE: PROBES}
# A port of this name is not counted: whoever looks has connections to it himself.
UNCOUNTED = ""
# Connections more than before that are no leak: a pool may have grown; to a peer a channel
# may just have its next one. What is left by every answer is more, there are 20 of them.
POOLS = frozenset({"to valkey", "to mongodb"})
POOL_SLACK = 12
CONNECTION_SLACK = 2
CONNECTIONS = ("to ", "from ")
NO_PEER = "socket"
# Seconds for what a fault has left to be let go of.
SETTLING_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds. `files` by kind, `tasks` by the sample that counts them."""

    pid: int
    files: Mapping[str, int]
    tasks: Mapping[str, int]


Footprints = Mapping[str, Footprint]
Leaks = dict[tuple[str, str], str]


def footprint(pid: int, samples: Mapping[str, float], ports: Mapping[int, str]) -> Footprint:
    """Take note of a process: `samples` of its metrics; `ports`: what listens there."""
    tasks = {
        kind: int(count)
        for kind, count in samples.items()
        if kind.startswith(TASKS) and WAITING_FOR_CALLS not in kind
    }
    return Footprint(pid, open_files(pid, ports), tasks)


def open_files(pid: int, ports: Mapping[int, str]) -> Counter[str]:
    """Count a process's open files: "to NAME", "from clients of PORT", "pipe", a path, …"""
    sockets = {each.fd: each for each in psutil.Process(pid).net_connections(kind="inet")}
    served = {each.laddr.port for each in sockets.values() if each.status == psutil.CONN_LISTEN}
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        socket = sockets.get(int(entry.name))
        if socket is not None:
            # () where it has none.
            peer = getattr(socket.raddr, "port", None)
            if peer is None:
                kind = NO_PEER
            elif (port := socket.laddr.port) in served:
                kind = f"from clients of {port}" if ports.get(port) != UNCOUNTED else ""
            else:
                kind = f"to {ports.get(peer, peer)}"
        else:
            try:
                kind = str(entry.readlink())
            except FileNotFoundError:  # it has just been closed
                continue
            # "pipe:[4711]", "anon_inode:[eventfd]"; what is in a name after that is its own.
            if not kind.startswith("/"):
                kind = kind.removeprefix("anon_inode:").partition(":")[0]
        if kind:
            kinds[kind] += 1
    return kinds


def leaks(before: Footprints, now: Footprints) -> Leaks:
    """What processes hold more of than they did; those left out that were started since."""
    found: Leaks = {}
    for name, held in now.items():
        had = before.get(name)
        if had is None or had.pid != held.pid:
            continue
        # A pool's connection that was reset is a socket without a peer until the pool meets it.
        reset = sum(max(0, had.files.get(pool, 0) - held.files.get(pool, 0)) for pool in POOLS)
        for kind, count in held.files.items():
            slack = reset if kind == NO_PEER else _slack(kind)
            if count > had.files.get(kind, 0) + slack:
                found[name, kind] = f"{name}: {had.files.get(kind, 0)} open: {kind}; now {count}"
        for kind, count in held.tasks.items():
            most = max(had.tasks.get(kind, 0), PERIODIC.get(kind.removeprefix(TASKS)[:-1], 0))
            if count > most:
                found[name, kind] = f"{name}: {most} of {kind}, now {count}"
    return found


async def nothing_left(
    before: Footprints,
    look: Callable[[], Awaitable[Footprints]],
    timeout: float = SETTLING_SECONDS,
) -> None:
    """Wait until nothing more is held than before. Raises AssertionError with what is.

    What is left behind is there whenever one looks; what is at work is there now and then.
    """
    always: Leaks | None = None

    async def let_go() -> bool:
        nonlocal always
        found = leaks(before, await look())
        always = found if always is None else {k: found[k] for k in always.keys() & found}
        assert not always, list(always.values())
        return True

    await until(let_go, timeout=timeout, what="nothing is left behind")


def _slack(kind: str) -> int:
    if kind in POOLS:
        return POOL_SLACK
    return CONNECTION_SLACK if kind.startswith(CONNECTIONS) else 0
