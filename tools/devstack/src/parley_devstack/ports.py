"""Ports: free ones, and who holds one that is not."""

from __future__ import annotations

import contextlib
import random
import socket

import psutil

LOOPBACK = "127.0.0.1"
CHOICE = range(15_000, 31_000)


def free_port(host: str = LOOPBACK) -> int:
    """Returns a port nobody listens on now; another process may take it before you do."""
    return free_ports(1, host)[0]


def free_ports(count: int, host: str = LOOPBACK) -> list[int]:
    """Returns `count` different free ports.

    They lie below the range from which systems choose ports for outgoing connections,
    so that none is lost to one between now and the server's start.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(CHOICE, min(len(CHOICE), count * 50 + 500)):
        if is_free(port, host):
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"no {count} free ports between {CHOICE.start} and {CHOICE.stop}")


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
