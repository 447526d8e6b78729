"""Stopping in order, in the middle of answers: none is lost, no byte differs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from e2e import flows
from parley_devstack.stack import Stack
from support.poll import until
from support.stack import LendMongoDB, running, sim_config

STREAMS = 8
# An answer of about four seconds; processes have one to end in.
MESSAGE = "[[sim:length tokens=200]] [[sim:slow itl=0.02]] Number {}"
GRACE = {
    f"PARLEY_{kind.upper()}_SHUTDOWN_GRACE_SECONDS": "1"
    for kind in ("gateway", "session", "inference")
}
# Far longer than any wait here: what goes on, goes on without it.
LEASE = {"PARLEY_SESSION_LEASE_SECONDS": "60"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, lend_mongodb: LendMongoDB) -> Iterator[Stack]:
    """Two of each part."""
    folder = tmp_path_factory.mktemp("stopping")
    env = dict.fromkeys(("gateway", "session", "inference"), GRACE | LEASE)
    with lend_mongodb() as lent:
        config = sim_config(folder, gateways=2, sessions=2, engines=2, env=env, **lent)
        yield from running(Stack(config))


@pytest.fixture
async def stack(pairs: Stack) -> AsyncIterator[Stack]:
    """The module's stack, whole again after each test."""
    yield pairs
    for name in pairs.names:
        if pairs.pid(name) is None:
            await pairs.start_one(name)


async def _reading(url: str) -> tuple[list[list[flows.Event]], list[asyncio.Task[None]]]:
    """Streams in progress: the events that each has so far, and the tasks that read."""
    seen: list[list[flows.Event]] = [[] for _ in range(STREAMS)]

    async def read(number: int) -> None:
        body = {
            "message": MESSAGE.format(number),
            "stream": True,
            "options": {"cache": "bypass", "timeoutSeconds": 50},
        }
        async with (
            flows.client(url) as http,
            http.stream("POST", "/chat", json=body) as response,
        ):
            async for event in flows.events(response):
                seen[number].append(event)

    tasks = [asyncio.create_task(read(number)) for number in range(STREAMS)]
    await until(lambda: all(len(each) > 10 for each in seen), what="answers in progress")
    return seen, tasks


async def _judge(stack: Stack, seen: list[list[flows.Event]], url: str) -> None:
    async with flows.client(url) as http:
        for events in seen:
            assert events[-1].name == "done", events[-1]
            done = events[-1].data
            assert flows.joined_text(events) == done["message"]["content"]
            assert done["usage"]["completionTokens"] == 200
            stored = (await http.get(f"/chat/{done['chatID']}")).json()
            assert [m["content"] for m in stored["messages"]][1:] == [done["message"]["content"]]
            assert "activeRun" not in stored


@pytest.mark.parametrize("kind", ["session", "inference"])
async def test_answers_go_on_elsewhere_when_a_part_is_stopped(stack: Stack, kind: str) -> None:
    seen, reading = await _reading(stack.url)
    assert all(events[-1].name == "delta" for events in seen)
    await stack.stop_one(f"{kind}-1")
    async with asyncio.timeout(40):
        await asyncio.gather(*reading)
    await _judge(stack, seen, stack.url)


async def test_a_killed_holder_is_taken_over_from_at_once(stack: Stack) -> None:
    seen, reading = await _reading(stack.url)
    await stack.kill("session-1")
    async with asyncio.timeout(40):
        await asyncio.gather(*reading)
    await _judge(stack, seen, stack.url)


async def test_a_stopped_gateway_leaves_streams_that_can_be_resumed(stack: Stack) -> None:
    seen, reading = await _reading(stack.urls[0])
    await stack.stop_one("gateway-1")
    await asyncio.gather(*reading, return_exceptions=True)
    for events in seen:
        assert events[-1].name != "failed"
        if events[-1].name == "done":
            continue
        async with (
            flows.client(stack.urls[1]) as http,
            http.stream(
                "GET",
                f"/runs/{events[0].data['runID']}/events",
                headers={"Last-Event-ID": events[-1].id},
            ) as response,
        ):
            assert response.status_code == 200
            events += [e async for e in flows.events(response) if e.name != "run"]
    await _judge(stack, seen, stack.urls[1])
