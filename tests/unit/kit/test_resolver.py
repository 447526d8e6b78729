"""Targets are read strictly, and a name keeps its last known addresses."""

import asyncio
import socket
from typing import Any

import pytest

from parley_kit.resolver import DnsResolver, StaticResolver, join_address, parse_targets


async def test_a_list_is_yielded_once() -> None:
    resolver = parse_targets(" a:1, b.c:65535,[::1]:3 ")
    assert isinstance(resolver, StaticResolver)
    assert [found async for found in resolver.watch()] == [{"a:1", "b.c:65535", "[::1]:3"}]


def test_a_dns_name_is_recognised() -> None:
    resolver = parse_targets("dns:///session-headless.ns:50051", refresh_seconds=1)
    assert isinstance(resolver, DnsResolver)
    assert (resolver.host, resolver.port, resolver.refresh_seconds) == (
        "session-headless.ns",
        50051,
        1,
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a:1,,b:2",
        "a:1;b:2",
        "http://a:1",
        "dns:///a",
        "::1:3",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be host:port"):
        parse_targets(text)


def test_addresses_are_joined_as_grpc_wants_them() -> None:
    assert join_address("10.0.0.1", 5) == "10.0.0.1:5"
    assert join_address("::1", 5) == "[::1]:5"
    assert join_address("name", 5) == "name:5"


def _answers(monkeypatch: pytest.MonkeyPatch, *answers: list[str] | OSError) -> None:
    """Let the loop resolve to each answer in turn, the last one for ever."""
    left = list(answers)

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, OSError):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port)) for found in answer]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def test_a_change_is_yielded_and_a_failure_keeps_the_last_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failure = socket.gaierror("no such name")
    _answers(
        monkeypatch, failure, ["10.0.0.1"], ["10.0.0.1"], failure, ["10.0.0.2", "10.0.0.1"], failure
    )
    seen = []
    async with asyncio.timeout(5):
        async for found in DnsResolver("name", 7, refresh_seconds=0.001).watch():
            seen.append(found)
            if len(seen) == 2:
                break
    assert seen == [{"10.0.0.1:7"}, {"10.0.0.1:7", "10.0.0.2:7"}]


async def test_a_name_of_this_machine_resolves() -> None:
    async with asyncio.timeout(5):
        found = await anext(DnsResolver("localhost", 7).watch())
    assert found & {"127.0.0.1:7", "[::1]:7"}
