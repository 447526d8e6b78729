"""What the EndpointSlices of a Service say: the addresses that may get a new request. Pure.

A slice is the API object as JSON gives it. A Service has several (by size, address family
and port), an endpoint may be in two of them while it moves, and a Pod of a dual-stack Service
has an address in each family: it is one engine, named by its IPv4 address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from parley_kit.resolver import MAX_ADDRESSES, join_address

# In this order a Pod's address is taken.
_FAMILIES = ("IPv4", "IPv6", "FQDN")

Slice = Mapping[str, Any]


def addresses_of(slices: Iterable[Slice], port: str) -> frozenset[str]:
    """Return `host:port` of the endpoints that take new requests; `port`: a name or a number.

    Those are the ready ones that do not end; while there is none, those that end and still
    serve, as kube-proxy does: their health has the last word. At most MAX_ADDRESSES.
    """
    ready: dict[str, str] = {}
    ending: dict[str, str] = {}
    for family in _FAMILIES:
        for found in slices:
            if found.get("addressType") != family:
                continue
            number = _port(found, port)
            if number is None:
                continue
            for endpoint in found.get("endpoints") or ():
                group = _judge(endpoint.get("conditions") or {}, ready, ending)
                hosts = endpoint.get("addresses") or ()
                if group is not None and hosts:
                    # The first one stands for all: they are fungible.
                    group.setdefault(_owner(endpoint), join_address(hosts[0], number))
    return frozenset(sorted((ready or ending).values())[:MAX_ADDRESSES])


def _judge(
    conditions: Mapping[str, Any], ready: dict[str, str], ending: dict[str, str]
) -> dict[str, str] | None:
    """Choose the group of an endpoint. A condition that is not known counts as the API says."""
    is_ready = conditions.get("ready") is not False
    if conditions.get("terminating"):
        serves = conditions.get("serving")
        return ending if (is_ready if serves is None else serves) else None
    return ready if is_ready else None


def _owner(endpoint: Mapping[str, Any]) -> str:
    owner: str = (endpoint.get("targetRef") or {}).get("uid") or endpoint["addresses"][0]
    return owner


def _port(found: Slice, wanted: str) -> int | None:
    for port in found.get("ports") or ():
        number = port.get("port")
        if number is not None and wanted in ((port.get("name") or ""), str(number)):
            return int(number)
    return None
