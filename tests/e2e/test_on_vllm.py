"""The platform as processes, answering with a real model on vLLM."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from e2e import flows
from parley_devstack.stack import Stack
from support.poll import until
from support.vllm import assert_gone, ended, processes_below

pytestmark = [pytest.mark.vllm]


async def counter(stack: Stack, name: str) -> float:
    """Read one of vLLM's own counters from the replica's metrics."""
    async with httpx.AsyncClient(base_url=f"http://{stack.plan('inference-1').admin}") as http:
        text = (await http.get("/metrics")).text
    values = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    assert values, f"{name} is not among the metrics"
    return sum(float(value) for value in values)


async def test_two_turns_reach_vllm_and_the_prefix_is_warm(vllm_stack: Stack) -> None:
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    before = [await counter(vllm_stack, name) for name in names]
    async with flows.client(vllm_stack.url) as http:
        await flows.two_turns(
            http, vllm_stack.plan("inference-1").grpc, maxTokens=48, temperature=0
        )
    after = [await counter(vllm_stack, name) for name in names]
    assert all(new > old for new, old in zip(after, before, strict=True)), (before, after)


async def test_the_model_answers_a_question_it_knows(vllm_stack: Stack) -> None:
    async with flows.client(vllm_stack.url) as http:
        answer = await flows.ask(
            http,
            "/chat",
            "What is the capital of France?",
            options={"temperature": 0, "maxTokens": 40},
        )
        models = await flows.models(http)
    assert "Paris" in answer["message"]["content"]
    assert [model["engine"] for model in models] == ["vllm"]


async def test_a_question_asked_again_is_an_exact_hit(vllm_stack: Stack) -> None:
    async with flows.client(vllm_stack.url) as http:
        await flows.repeated_question(http, "What is the capital of Italy?")


async def test_a_deleted_chat_is_gone_with_its_cached_answer(vllm_stack: Stack) -> None:
    async with flows.client(vllm_stack.url) as http:
        await flows.deletion(http, "What is the capital of Spain?")


async def test_a_client_that_leaves_does_not_lose_its_answer(vllm_stack: Stack) -> None:
    async with flows.client(vllm_stack.url) as http:
        await flows.leaving(http, "Tell me a story about the sea.", maxTokens=96)


async def test_chats_survive_a_restart_of_the_engine_and_the_session(vllm_stack: Stack) -> None:
    async with flows.client(vllm_stack.url) as http:
        first = await flows.ask(http, "/chat", "Say hello.", options={"maxTokens": 16})
        await vllm_stack.restart("session-1")
        pid = vllm_stack.pid("inference-1")
        assert pid is not None
        below = processes_below(pid)
        assert below, "the engine has processes of its own"
        await vllm_stack.terminate("inference-1")
        await ended(pid, 30)
        await asyncio.to_thread(assert_gone, below)
        await vllm_stack.stop_one("inference-1")
        assert vllm_stack.exit_code("inference-1") == 0
        await vllm_stack.start_one("inference-1")
        await until(lambda: flows.models(http), timeout=15, what="the model listed again")
        second = await flows.ask(
            http, f"/chat/{first['chatID']}/completion", "Again.", options={"maxTokens": 16}
        )
        assert second["context"]["messagesIncluded"] == 3
