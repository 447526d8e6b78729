"""Free ports on loopback."""

import contextlib
import socket
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Return ports that were all free a moment ago, no two alike.

    Someone else may take one before you do: prefer port 0 where a server can
    say which it got.
    """
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind((LOOPBACK, 0))
        return [int(item.getsockname()[1]) for item in sockets]


def free_port() -> int:
    """Return one port that was free a moment ago."""
    return free_ports(1)[0]


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
