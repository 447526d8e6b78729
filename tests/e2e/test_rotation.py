"""Another password of Redis while answers are made: both hold for a while, then the new one alone.

As a rollout does after the Secret was changed: replicas with the new one come, those with the old
one are stopped and hand over what they have. The old one is then taken away.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from e2e import flows
from parley_devstack.stack import Stack
from support.poll import until
from support.servers import ValkeyServer
from support.stack import MakeStack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
OLD, NEW = "old-aa61bc0f", "new-9d20e7f4"
STREAMS = 8
OPTIONS = {"cache": "bypass", "timeoutSeconds": 50}
SOON = {"PARLEY_SESSION_SHUTDOWN_GRACE_SECONDS": "1", "PARLEY_SESSION_LEASE_SECONDS": "60"}


def url(server: ValkeyServer, password: str) -> str:
    """The server's URL with a password."""
    return f"redis://:{password}@{server.host}:{server.port}/0"


async def live_runs(stack: Stack) -> float:
    """How many answers the replica with the old password makes."""
    async with httpx.AsyncClient(base_url=f"http://{stack.plan('session-1').admin}") as http:
        text = (await http.get("/metrics")).text
    return sum(map(float, re.findall(r"^parley_session_live_runs (.+)$", text, re.MULTILINE)))


@pytest.fixture(name="guarded")
def _guarded(valkey_server: ValkeyServer) -> ValkeyServer:
    """A server that asks for the old password."""
    with Redis.from_url(valkey_server.url) as redis:
        redis.execute_command("ACL", "SETUSER", "default", "resetpass", f">{OLD}")
    return valkey_server


async def test_a_password_is_changed_and_no_answer_notices(
    guarded: ValkeyServer, make_stack: MakeStack, tmp_path: Path
) -> None:
    new = url(guarded, NEW)
    stack = await make_stack(
        redis_url=url(guarded, OLD),
        spare={"session": 1, "cache": 1},
        env={
            "session": SOON,
            "session-2": {"PARLEY_SESSION_LOG_REDIS_URL": new},
            "cache-2": {"PARLEY_CACHE_REDIS_URL": new},
        },
    )
    seen: list[list[flows.Event]] = [[] for _ in range(STREAMS)]

    async def read(http: httpx.AsyncClient, number: int) -> None:
        text = f"[[sim:length tokens=200]] [[sim:slow itl=0.03]] Number {number}"
        body = {"message": text, "stream": True, "options": OPTIONS}
        async with http.stream("POST", "/chat", json=body) as response:
            async for event in flows.events(response):
                seen[number].append(event)

    with Redis.from_url(url(guarded, OLD)) as redis:
        redis.execute_command("ACL", "SETUSER", "default", f">{NEW}")
    await stack.add("cache")
    await stack.add("session")
    async with flows.client(stack.url) as http:
        reading = [asyncio.create_task(read(http, number)) for number in range(STREAMS)]
        await until(lambda: all(len(each) > 10 for each in seen), what="answers in progress")
        assert await live_runs(stack) > 0
        await stack.stop_one("session-1")
        await stack.stop_one("cache-1")
        with Redis.from_url(new) as redis:
            redis.execute_command("ACL", "SETUSER", "default", f"<{OLD}")
        async with asyncio.timeout(60):
            await asyncio.gather(*reading)
        for events in seen:
            assert events[-1].name == "done", events[-1]
            assert flows.joined_text(events) == events[-1].data["message"]["content"]
        await flows.repeated_question(http, "[[sim:length tokens=6]] What is kept now?")
    with Redis.from_url(url(guarded, OLD)) as redis, pytest.raises(AuthenticationError):
        redis.ping()
    written = [path.read_text(errors="replace") for path in tmp_path.rglob("*.log")]
    written.append(stack.config.stack_json.read_text())
    assert len(written) > 6
    assert not any(password in text for text in written for password in (OLD, NEW))
