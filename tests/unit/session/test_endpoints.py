"""What EndpointSlices say, where engines are looked for, and the watch without a cluster."""

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from parley_kit.resolver import MAX_ADDRESSES, DnsResolver, Resolver, StaticResolver
from parley_session.config import SessionSettings
from parley_session.fleet.discovery import ServiceResolver, WatchTimes
from parley_session.fleet.endpoint_slices import addresses_of
from parley_session.fleet.slices_api import Away, Event, Gone
from parley_session.fleet.targets import Together, engine_targets
from support.poll import until
from support.resolvers import ListedResolver


def endpoint(address: str, uid: str = "", **conditions: Any) -> dict[str, Any]:
    target = {"targetRef": {"uid": uid}} if uid else {}
    return {"addresses": [address], "conditions": conditions, **target}


def a_slice(*endpoints: Any, family: str = "IPv4", name: str = "s", **port: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": "1"},
        "addressType": family,
        "ports": [{"name": "grpc", "port": 1} | port],
        "endpoints": list(endpoints),
    }


async def follow(resolver: Resolver, tell: Callable[[frozenset[str]], None]) -> None:
    async for found in resolver.watch():
        tell(found)


# slices ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "taken"),
    [
        ({}, True),
        ({"ready": True}, True),
        ({"ready": None}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True}, False),
        ({"ready": True, "serving": True, "terminating": False}, True),
        # A Service that publishes addresses that are not ready says this of one that ends.
        ({"ready": True, "serving": True, "terminating": True}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
    ],
)
def test_conditions_say_who_may_get_something_new(conditions: dict[str, Any], taken: bool) -> None:
    slices = [a_slice(endpoint("10.0.0.1", **conditions), endpoint("10.0.0.2"))]
    assert ("10.0.0.1:1" in addresses_of(slices, "grpc")) is taken


def test_those_that_end_and_serve_are_better_than_none() -> None:
    ending = endpoint("10.0.0.1", ready=False, serving=True, terminating=True)
    gone = endpoint("10.0.0.2", ready=False, serving=False, terminating=True)
    assert addresses_of([a_slice(ending, gone)], "grpc") == {"10.0.0.1:1"}


def test_a_pod_with_two_addresses_is_one_engine() -> None:
    six = a_slice(endpoint("fd00::1", "p1"), endpoint("fd00::2", "p2"), family="IPv6")
    four = a_slice(endpoint("10.0.0.1", "p1"))
    assert addresses_of([six, four], "grpc") == {"10.0.0.1:1", "[fd00::2]:1"}


def test_an_endpoint_in_two_slices_is_one_engine() -> None:
    assert addresses_of([a_slice(endpoint("10.0.0.1", "p"))] * 2, "grpc") == {"10.0.0.1:1"}


def test_a_port_is_found_by_name_or_number_and_else_nobody_is() -> None:
    slices = [a_slice(endpoint("10.0.0.1"), name="x", port=7)]
    assert addresses_of(slices, "grpc") == addresses_of(slices, "7") == {"10.0.0.1:7"}
    assert addresses_of(slices, "http") == frozenset()
    assert addresses_of([{"addressType": "IPv4", "ports": None, "endpoints": None}], "7") == set()


def test_what_a_service_may_name_is_bounded() -> None:
    many = [endpoint(f"10.0.{n // 256}.{n % 256}") for n in range(MAX_ADDRESSES + 10)]
    assert len(addresses_of([a_slice(*many)], "grpc")) == MAX_ADDRESSES


# targets --------------------------------------------------------------------------


def test_engines_are_named_by_list_name_or_service() -> None:
    assert isinstance(engine_targets("a:1,b:2"), StaticResolver)
    assert isinstance(engine_targets("dns:///a:1"), DnsResolver)
    one = engine_targets(" kubernetes:///engines.models:grpc ")
    assert isinstance(one, ServiceResolver)
    assert (one.service, one.namespace, one.port) == ("engines", "models", "grpc")
    two = engine_targets("kubernetes:///a:grpc, kubernetes:///b:50053")
    assert isinstance(two, Together)
    assert [r.port for r in two.resolvers] == ["grpc", "50053"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    [
        "kubernetes:///engines",
        "kubernetes:///:grpc",
        "kubernetes:///A:grpc",
        "kubernetes:///a.b.c:grpc",
        "kubernetes:///a:grpc,b:1",
        ",".join(["kubernetes:///a:grpc"] * 33),
    ],
)
def test_a_service_that_is_named_wrongly_is_refused_at_start(text: str) -> None:
    with pytest.raises(ValidationError):
        SessionSettings(
            mongodb_uri=SecretStr("mongodb://x"),
            log_redis_url=SecretStr("redis://x"),
            inference_targets=text,
        )


async def test_several_places_are_one_set() -> None:
    first, second = ListedResolver("a:1"), ListedResolver()
    seen: list[frozenset[str]] = []
    task = asyncio.create_task(follow(Together([first, second]), seen.append))
    await until(lambda: seen[-1:] == [{"a:1"}])
    second.set("b:1", "a:1")
    await until(lambda: seen[-1] == {"a:1", "b:1"})
    first.set()
    second.set("b:1")
    await until(lambda: seen[-1] == {"b:1"})
    task.cancel()
    await asyncio.wait({task})


# the watch ------------------------------------------------------------------------


class ScriptedApi:
    """An API server in memory: what is listed, then events, or an error, as they are put."""

    def __init__(self) -> None:
        self.listed: list[Any] = []
        self.lists = 0
        self.down = False
        self.events: queue.Queue[Event | Exception | None] = queue.Queue()

    def list(self) -> tuple[list[Any], str]:
        self.lists += 1
        if self.down:
            raise Away("down")
        return self.listed, str(self.lists)

    def watch(self, version: str) -> Iterator[Event]:
        while (event := self.events.get(timeout=10)) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    def interrupt(self) -> None:
        self.events.put(None)


def changed(kind: str, found: Any) -> Event:
    return {"type": kind, "object": found}


Watched = tuple[ScriptedApi, list[frozenset[str]]]


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    api = ScriptedApi()
    api.listed = [a_slice(endpoint("10.0.0.1"))]
    times = WatchTimes(first_pause=0.01, longest_pause=0.02)
    resolver = ServiceResolver("engines", "", "grpc", times=times, connect=lambda: api)
    seen: list[frozenset[str]] = []
    task = asyncio.create_task(follow(resolver, seen.append))
    await until(lambda: seen == [{"10.0.0.1:1"}])
    yield api, seen
    task.cancel()
    await asyncio.wait({task})


async def test_changes_are_told_and_what_changes_nothing_is_not(watched: Watched) -> None:
    api, seen = watched
    bookmark = changed("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    api.events.put(bookmark)
    api.events.put(changed("MODIFIED", a_slice(endpoint("10.0.0.1"))))
    api.events.put(changed("ADDED", a_slice(endpoint("10.0.0.2"), name="t")))
    await until(lambda: len(seen) == 2)
    assert seen[1] == {"10.0.0.1:1", "10.0.0.2:1"}
    api.events.put(changed("DELETED", a_slice(name="s")))
    await until(lambda: seen[-1] == {"10.0.0.2:1"})
    assert api.lists == 1


async def test_a_version_that_is_gone_and_nonsense_are_answered_by_a_new_list(
    watched: Watched,
) -> None:
    api, seen = watched
    api.listed = [a_slice(endpoint("10.0.0.3"))]
    api.events.put(Gone())
    await until(lambda: seen[-1] == {"10.0.0.3:1"})
    api.listed = [a_slice(endpoint("10.0.0.4"))]
    api.events.put(changed("MODIFIED", {"no": "metadata"}))
    await until(lambda: seen[-1] == {"10.0.0.4:1"})


async def test_nothing_is_told_while_nothing_is_known(watched: Watched) -> None:
    api, seen = watched
    api.down = True
    api.events.put(Away("broken"))
    await until(lambda: api.lists >= 4)
    assert seen == [{"10.0.0.1:1"}]
    api.listed, api.down = [], False
    # That there are none is an answer.
    await until(lambda: seen[-1] == frozenset())
