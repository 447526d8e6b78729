"""Ports: free ones, and who holds one that is not."""

from __future__ import annotations

import contextlib
import os
import random
import socket

import psutil

LOOPBACK = "127.0.0.1"
CHOICE = range(15_000, 31_000)
# "first-last": the part of these that is this process's, and its children's. Between the choice
# of a port and the start of its server lie seconds, in which another stack may choose it too:
# so of several that start at once, each is given a part.
PART = "PARLEY_DEVSTACK_PORTS"

# Ports chosen before: one whose server has ended may be wanted again.
_CHOSEN: set[int] = set()


def free_port(host: str = LOOPBACK) -> int:
    """Returns a port nobody listens on now; another process may take it before you do."""
    return free_ports(1, host)[0]


def free_ports(count: int, host: str = LOOPBACK) -> list[int]:
    """Returns `count` different free ports.

    They lie below the range from which systems choose ports for outgoing connections,
    so that none is lost to one between now and the server's start. None is returned twice
    while there are others.
    """
    part = _part()
    found: list[int] = []
    ports = random.SystemRandom().sample(part, len(part))
    for port in sorted(ports, key=_CHOSEN.__contains__):
        if is_free(port, host):
            found.append(port)
            if len(found) == count:
                _CHOSEN.update(found)
                return found
    raise OSError(f"no {count} free ports between {part.start} and {part.stop}")


def part_of(number: int, count: int) -> str:
    """Returns the value of `PARLEY_DEVSTACK_PORTS` for one of `count` processes, from 0."""
    size = len(CHOICE) // count
    first = CHOICE.start + number * size
    return f"{first}-{first + size - 1}"


def _part() -> range:
    text = os.environ.get(PART, "")
    if not text:
        return CHOICE
    first, _, last = text.partition("-")
    try:
        part = range(int(first), int(last) + 1)
    except ValueError:
        part = range(0)
    if not part or part.start < 1 or part.stop > 65_536:
        raise ValueError(f"{PART} is {text!r}: it must be like 15000-22999.")
    return part


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Says whether one can listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def holder(port: int) -> str:
    """Returns who listens on the port, as "name (pid 1)", or "another process"."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, OSError):
        return "another process"
    for connection in connections:
        address = connection.laddr
        if address and address.port == port and connection.status == psutil.CONN_LISTEN:
            if connection.pid is None:
                break
            with contextlib.suppress(psutil.Error):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another process"
