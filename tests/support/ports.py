"""Ports on loopback: free ones, one that is held, and an address that is not loopback."""

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from parley_devstack.ports import LOOPBACK, PART, free_port, free_ports, part_of

__all__ = ["LOOPBACK", "free_port", "free_ports", "occupied_port", "own_address"]


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of pytest-xdist ports of its own: their stacks start at once."""
    given = getattr(config, "workerinput", None)
    if given is not None:
        number = int(given["workerid"].removeprefix("gw"))
        os.environ.setdefault(PART, part_of(number, given["workercount"]))


@contextlib.contextmanager
def occupied_port() -> Iterator[int]:
    """Hold a port: someone listens there."""
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        holder.listen()
        yield int(holder.getsockname()[1])


def own_address() -> str:
    """Return an IPv4 address of this machine that is not a loopback one; sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address: str = probe.getsockname()[0]
    return address
