"""What the cache said of a question reaches the caller, and what it refused is counted."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from e2e import flows
from parley_devstack.stack import Stack
from support.poll import until

GREEDY = {"temperature": 0}


async def ask(http: httpx.AsyncClient, question: str, **options: Any) -> dict[str, Any]:
    """Ask in a chat of its own; the answer's `cache`."""
    found: dict[str, Any] = (await flows.ask(http, "/chat", question, options=options))["cache"]
    return found


async def fills(stack: Stack) -> dict[str, float]:
    """Answers offered to the cache by all session replicas, by the reason of their refusal."""
    counted: dict[str, float] = {}
    for name in stack.names_of("session"):
        async with httpx.AsyncClient(base_url=f"http://{stack.plan(name).admin}") as http:
            text = (await http.get("/metrics")).text
        pattern = r'^parley_session_cache_fills_total\{reason="([^"]*)"\} (\S+)$'
        for reason, value in re.findall(pattern, text, re.MULTILINE):
            counted[reason] = counted.get(reason, 0) + float(value)
    return counted


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Is a question nobody asked before known?", "not_found"),
        ("What is the weather today?", "time_dependent"),
    ],
)
async def test_a_miss_says_why(sim_stack: Stack, question: str, reason: str) -> None:
    async with flows.client(sim_stack.url, user=f"asks-{reason}") as http:
        told = await ask(http, question, **GREEDY)
        assert told == {"status": "miss", "reason": reason}
        # A stream says the same.
        seen = await flows.stream(http, "/chat", question, options=GREEDY)
        done = seen[-1].data["cache"]
        expected = "exact" if reason == "not_found" else "miss"
        assert done["status"] == expected
        assert done.get("reason", "") == ("" if expected == "exact" else reason)


@pytest.mark.parametrize(
    ("reason", "options"),
    [
        ("temperature", {"temperature": 1.5}),
        ("truncated", {"temperature": 0, "maxTokens": 3}),
    ],
)
async def test_an_answer_that_is_not_kept_is_counted_by_reason_and_never_given_again(
    sim_stack: Stack, reason: str, options: dict[str, Any]
) -> None:
    before = (await fills(sim_stack)).get(reason, 0)
    async with flows.client(sim_stack.url, user=f"refused-{reason}") as http:
        for _ in range(2):
            assert (await ask(http, "Is this one kept?", **options))["status"] == "miss"

    async def counted() -> bool:
        return (await fills(sim_stack)).get(reason, 0) == before + 2

    await until(counted, what="two refusals counted")


async def test_bypass_neither_asks_nor_keeps_and_refresh_replaces(sim_stack: Stack) -> None:
    question = "What is kept of this?"
    async with flows.client(sim_stack.url, user="bypasses") as http:
        assert await ask(http, question, **GREEDY, cache="bypass") == {"status": "bypass"}
        first = await flows.ask(http, "/chat", question, options=GREEDY)
        assert first["cache"] == {"status": "miss", "reason": "not_found"}
        assert (await ask(http, question, **GREEDY))["status"] == "exact"
        assert await ask(http, question, **GREEDY, cache="bypass") == {"status": "bypass"}

        fresh = await flows.ask(http, "/chat", question, options={**GREEDY, "cache": "refresh"})
        assert fresh["cache"] == {"status": "miss", "reason": "refresh"}
        # The first answer's chat goes, and with it all that came of it; the fresh one stays.
        assert (await http.delete(f"/chat/{first['chatID']}")).status_code == 204
        assert (await ask(http, question, **GREEDY))["status"] == "exact"
        assert (await http.delete(f"/chat/{fresh['chatID']}")).status_code == 204
        assert (await ask(http, question, **GREEDY))["status"] == "miss"


async def test_an_exact_hit_tells_its_age_and_the_tokens_it_saved(sim_stack: Stack) -> None:
    async with flows.client(sim_stack.url, user="ages") as http:
        first = await flows.ask(http, "/chat", "How old is this?", options=GREEDY)
        again = await flows.ask(http, "/chat", "How old is this?", options=GREEDY)
        assert again["cache"]["status"] == "exact"
        assert again["cache"]["ageSeconds"] >= 0
        assert again["usage"]["completionTokens"] == first["usage"]["completionTokens"]
        assert again["message"]["messageID"] != first["message"]["messageID"]
