"""Where the replicas of a service are: a set of addresses that changes.

A resolver names addresses and knows nothing of their health
(``parley_kit.replicas`` does). Two are here: a fixed list, and a DNS name that
is asked again and again.
"""

import asyncio
import ipaddress
import logging
import re
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

_log = logging.getLogger(__name__)

DNS_REFRESH_SECONDS = 5.0
# A name that stands for more addresses than this is cut off.
MAX_ADDRESSES = 1024

_DNS_SCHEME = "dns:///"
_HOST_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^\s:/\[\],]+):(?P<port>\d{1,5})")


class Resolver(Protocol):
    """Tells the addresses (``host:port``) of a service's replicas."""

    def watch(self) -> AsyncIterator[frozenset[str]]:
        """Yield the whole set, first as it is and then whenever it has changed.

        On a failure to find out, the last known set stands: nothing is yielded.
        The iterator may end where no change can come.
        """
        ...

    def server_name(self, address: str) -> str:
        """Return the name that an address's certificate must have; empty: the address's own."""
        ...


class StaticResolver:
    """A fixed list."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self.addresses = frozenset(addresses)

    async def watch(self) -> AsyncIterator[frozenset[str]]:
        """Yield the list, once."""
        yield self.addresses

    def server_name(self, address: str) -> str:  # noqa: ARG002 - all go by one name
        """See ``Resolver``: each goes by its own name."""
        return ""


class DnsResolver:
    """All addresses of a name, asked for every ``refresh_seconds``.

    A name that cannot be resolved, now or ever yet, is no error: the last known
    set stands.
    """

    def __init__(self, host: str, port: int, refresh_seconds: float = DNS_REFRESH_SECONDS) -> None:
        self.host = host
        self.port = port
        self.refresh_seconds = refresh_seconds

    async def watch(self) -> AsyncIterator[frozenset[str]]:
        """Yield the addresses when they change; never ends."""
        known: frozenset[str] | None = None
        failing = False
        while True:
            try:
                found = await self._resolve()
            except (OSError, UnicodeError, TimeoutError) as error:
                if not failing:
                    _log.warning(
                        "a name does not resolve; the last known addresses stand",
                        extra={"host": self.host, "reason": str(error)},
                    )
                failing = True
            else:
                failing = False
                if found != known:
                    known = found
                    yield found
            await asyncio.sleep(self.refresh_seconds)

    def server_name(self, address: str) -> str:  # noqa: ARG002 - all go by one name
        """See ``Resolver``: all go by the name that was asked for."""
        return self.host

    async def _resolve(self) -> frozenset[str]:
        async with asyncio.timeout(max(5.0, self.refresh_seconds)):
            found = await asyncio.get_running_loop().getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM
            )
        addresses = sorted({str(item[4][0]) for item in found})[:MAX_ADDRESSES]
        return frozenset(join_address(address, self.port) for address in addresses)


def join_address(host: str, port: int) -> str:
    """Return ``host:port``, an IPv6 address in brackets."""
    try:
        bracketed = ipaddress.ip_address(host.partition("%")[0]).version == 6
    except ValueError:
        bracketed = False
    return f"[{host}]:{port}" if bracketed else f"{host}:{port}"


def parse_targets(text: str, *, refresh_seconds: float = DNS_REFRESH_SECONDS) -> Resolver:
    """Read ``host:port,host:port`` or ``dns:///name:port``. Raises ValueError."""
    text = text.strip()
    if text.startswith(_DNS_SCHEME):
        host, port = _split(text.removeprefix(_DNS_SCHEME))
        return DnsResolver(host.strip("[]"), port, refresh_seconds)
    pairs = [_split(item.strip()) for item in text.split(",")]
    return StaticResolver(f"{host}:{port}" for host, port in pairs)


def _split(text: str) -> tuple[str, int]:
    match = _HOST_PORT.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError("must be host:port,host:port or dns:///name:port")
    return match["host"], int(match["port"])
