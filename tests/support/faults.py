"""The faults: what is done, how long it lasts, how it is healed."""

from __future__ import annotations

from functools import partial

from support.fault_case import Blow, Case, Fault
from support.fault_stack import LEASE_SECONDS

# A link that is stalled or slow stays so for as long.
LINK_SECONDS = 6.0
# Longer than answers last: they come to their end and cannot be stored.
BEYOND_THE_END = 12.0
# Bytes that pass before a link is reset: some more pieces of the answers.
RESET_BYTES = 2000


def kill(name: str) -> Fault:
    """SIGKILL; started again once every answer has gone on."""

    async def strike(blow: Blow) -> None:
        await blow.platform.stack.kill(name)
        await blow.all_went_on()
        await blow.platform.stack.start_one(name)

    return strike


def lose(name: str) -> Fault:
    """SIGKILL behind links that say nothing of it, as when a machine loses its power."""

    async def strike(blow: Blow) -> None:
        for proxy in blow.platform.links[name]:
            proxy.stall()
        await blow.platform.stack.kill(name)
        await blow.all_went_on()
        blow.heal_links()
        await blow.platform.stack.start_one(name)

    return strike


def freeze(name: str) -> Fault:
    """SIGSTOP, until every answer has gone on and the lease is long over, then SIGCONT."""

    async def strike(blow: Blow) -> None:
        stack = blow.platform.stack
        await stack.pause(name)
        try:
            await blow.last(2 * LEASE_SECONDS)
            await blow.all_went_on(beyond=LEASE_SECONDS)
        finally:
            await stack.resume(name)

    return strike


def freeze_alone(name: str) -> Fault:
    """SIGSTOP of the only one of its kind, for longer than it takes to be noticed."""

    async def strike(blow: Blow) -> None:
        await blow.platform.stack.pause(name)
        try:
            await blow.last(4 * LEASE_SECONDS)
        finally:
            await blow.platform.stack.resume(name)
        await blow.all_went_on(beyond=4 * LEASE_SECONDS)

    return strike


def restart(name: str) -> Fault:
    """An orderly stop, and a start on the same address."""

    async def strike(blow: Blow) -> None:
        await blow.platform.stack.restart(name)

    return strike


def restart_empty(name: str) -> Fault:
    """SIGKILL, and a start at once; what it held in memory is gone."""

    async def strike(blow: Blow) -> None:
        await blow.platform.stack.kill(name)
        await blow.platform.stack.start_one(name)

    return strike


def stop(name: str) -> Fault:
    """SIGTERM, and a start once it has ended."""

    async def strike(blow: Blow) -> None:
        await blow.platform.stack.restart(name)
        await blow.all_went_on()

    return strike


def stall(*names: str, seconds: float = LINK_SECONDS) -> Fault:
    """Nothing moves on the links to these for a while; connections stay open."""

    async def strike(blow: Blow) -> None:
        for proxy in (proxy for name in names for proxy in blow.platform.links[name]):
            proxy.stall()
        await blow.last(seconds)
        blow.heal_links()

    return strike


def slow(bytes_per_second: int, *names: str) -> Fault:
    """So many bytes a second a connection and direction, for a while."""

    async def strike(blow: Blow) -> None:
        for proxy in (proxy for name in names for proxy in blow.platform.links[name]):
            proxy.slow(bytes_per_second)
        await blow.last(LINK_SECONDS)
        blow.heal_links()

    return strike


def reset(*names: str) -> Fault:
    """Every connection to these is reset after some more bytes."""

    async def strike(blow: Blow) -> None:
        for proxy in (proxy for name in names for proxy in blow.platform.links[name]):
            proxy.reset_after(RESET_BYTES)
        await blow.last(1.0)

    return strike


TAKEN_OVER = ("session", "parley_session_takeovers_total", "")
ON_A_HINT = ("session", "parley_session_takeovers_total", 'why="hint"')
ON_THE_LEASE = ("session", "parley_session_takeovers_total", 'why="lease"')
CONTINUED = ("session", "parley_session_engine_retries_total", "")
PROCESSES = [
    Case("kill -9", "gateway", kill("gateway-1")),
    Case("kill -9", "session", kill("session-1"), met_by=ON_A_HINT),
    Case("lost, no reset", "session", lose("session-1"), met_by=ON_THE_LEASE),
    Case("kill -9", "inference", kill("inference-1"), disturbs=0, met_by=CONTINUED),
    Case("freeze", "gateway", freeze("gateway-1")),
    Case("freeze", "session", freeze("session-1"), met_by=TAKEN_OVER, fenced="session-1"),
    Case("freeze", "inference", freeze("inference-1"), met_by=CONTINUED),
]
STORES = [
    Case("restart, empty", "valkey", restart_empty("valkey"), disturbs=0),
    Case("restart", "mongodb", restart("mongodb"), disturbs=0),
    Case("stalled past the end", "mongodb", stall("mongodb", seconds=BEYOND_THE_END)),
]
# One replica alone is cut off from a store that the others reach.
PARTITIONS = [
    Case("cut off from valkey", "session", stall("session-1 to valkey"), disturbs=0),
    Case(
        "cut off from mongodb",
        "session",
        stall("session-1 to mongodb", seconds=BEYOND_THE_END),
        met_by=ON_THE_LEASE,
    ),
]
STOPS = [
    Case("SIGTERM", "gateway", stop("gateway-1"), disturbs=0),
    Case("SIGTERM", "session", stop("session-1"), disturbs=0),
    Case("SIGTERM", "inference", stop("inference-1"), disturbs=0),
]


# Where workers make the answers, and other messages wait behind these.
TAKEN_BY_A_WORKER = ("worker", "parley_session_takeovers_total", "")
WORKERS = [
    Case("kill -9", "worker", kill("worker-1"), met_by=TAKEN_BY_A_WORKER, behind=True),
    Case(
        "freeze",
        "worker",
        freeze("worker-1"),
        met_by=TAKEN_BY_A_WORKER,
        fenced="worker-1",
        behind=True,
    ),
    Case("SIGTERM", "worker", stop("worker-1"), disturbs=0, behind=True),
    Case("cut off from valkey", "worker", stall("worker-1 to valkey"), disturbs=0),
    Case(
        "cut off from mongodb",
        "worker",
        stall("worker-1 to mongodb", seconds=BEYOND_THE_END),
        met_by=TAKEN_BY_A_WORKER,
    ),
    *(
        Case(f"{fault} link to {store}", "worker", strike(f"worker-1 to {store}"), disturbs=0)
        for store in ("valkey", "mongodb")
        for fault, strike in (("reset", reset), ("slow", partial(slow, 400)))
    ),
]


def links() -> list[Case]:
    """Each link, stalled, reset and slowed."""
    cases = []
    for victim, name, least in (
        ("gateway", "gateway-1", 1),
        ("session", "session-1", 1),
        ("inference", "inference-1", 1),
        ("valkey", "valkey", 0),
        ("mongodb", "mongodb", 0),
        ("cache", "cache-1", 0),
    ):
        cases += [
            Case("stalled link", victim, stall(name), disturbs=least),
            Case("reset link", victim, reset(name), disturbs=0),
            Case("slow link", victim, slow(400, name), disturbs=0),
        ]
    return cases


MATRIX = [*PROCESSES, *STOPS, *STORES, *PARTITIONS, *links()]
# For the default run.
FEW = [
    case
    for case in MATRIX
    if (case.fault, case.victim)
    in {
        ("kill -9", "gateway"),
        ("kill -9", "session"),
        ("kill -9", "inference"),
        ("restart, empty", "valkey"),
    }
]
