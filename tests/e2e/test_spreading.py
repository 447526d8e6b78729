"""Calls spread over session replicas, old and new."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from e2e import flows
from parley_devstack.stack import Stack
from support.poll import until
from support.stack import MakeStack

pytestmark = pytest.mark.timeout(180)

SERVED = re.compile(
    r'^parley_rpc_server_seconds_count\{method="[^"]*/Complete",status="OK"\} (\S+)$', re.MULTILINE
)


async def served(stack: Stack, name: str) -> float:
    """How many turns a session replica has answered."""
    async with httpx.AsyncClient(base_url=f"http://{stack.plan(name).admin}") as http:
        text = (await http.get("/metrics")).text
    return sum(float(value) for value in SERVED.findall(text))


async def test_three_session_replicas_are_all_used_and_a_new_one_gets_its_share(
    make_stack: MakeStack,
) -> None:
    stack = await make_stack(sessions=3, spare={"session": 1})
    options = {"cache": "bypass", "maxTokens": 4}

    async def all_used() -> bool:
        """Ask a few more; whether every replica has answered some."""
        async with flows.client(stack.url) as http:
            asked = (flows.ask(http, "/chat", f"Which {n}?", options=options) for n in range(6))
            await asyncio.gather(*asked)
        return all([await served(stack, name) for name in stack.names_of("session")])

    await until(all_used, timeout=20, what="three session replicas that are all used")
    new = await stack.add("session")
    assert new in stack.names_of("session")
    await until(all_used, timeout=20, what="a new session replica that is used")
