"""The platform as processes, on the simulated engine."""

from __future__ import annotations

import asyncio

from e2e import flows
from parley_devstack.stack import Stack
from support.stack import MakeStack


async def test_the_second_turn_sees_the_first_and_its_prefix_is_warm(sim_stack: Stack) -> None:
    async with flows.client(sim_stack.url) as http:
        await flows.two_turns(http, sim_stack.plan("inference-1").grpc)


async def test_a_question_asked_again_is_an_exact_hit(sim_stack: Stack) -> None:
    async with flows.client(sim_stack.url) as http:
        await flows.repeated_question(http, "How long is a piece of string?")


async def test_a_question_of_one_user_is_a_miss_for_another(sim_stack: Stack) -> None:
    options = {"temperature": 0}
    async with (
        flows.client(sim_stack.url, user="ada") as ada,
        flows.client(sim_stack.url, user="bob") as bob,
    ):
        mine = await flows.ask(ada, "/chat", "What is mine?", options=options)
        theirs = await flows.ask(bob, "/chat", "What is mine?", options=options)
        assert theirs["cache"]["status"] == "miss"
        assert (await bob.get(f"/chat/{mine['chatID']}")).status_code == 404
        assert (await bob.get(f"/runs/{mine['runID']}")).status_code == 404
        assert (await bob.delete(f"/chat/{mine['chatID']}")).status_code == 404
        assert (await ada.get(f"/chat/{mine['chatID']}")).status_code == 200


async def test_a_deleted_chat_is_gone_with_its_cached_answer(sim_stack: Stack) -> None:
    async with flows.client(sim_stack.url) as http:
        await flows.deletion(http, "What will be forgotten?")


async def test_a_thumbs_down_takes_the_answer_out_of_the_cache(sim_stack: Stack) -> None:
    options = {"temperature": 0}
    async with flows.client(sim_stack.url) as http:
        first = await flows.ask(http, "/chat", "Is this good?", options=options)
        again = await flows.ask(http, "/chat", "Is this good?", options=options)
        assert again["cache"]["status"] == "exact"
        rated = await http.post(
            f"/chat/{again['chatID']}/messages/{again['message']['messageID']}/feedback",
            json={"rating": "down"},
        )
        assert rated.status_code == 204
        third = await flows.ask(http, "/chat", "Is this good?", options=options)
        assert third["cache"]["status"] == "miss"
        assert first["message"]["content"]


async def test_a_client_that_leaves_does_not_lose_its_answer(sim_stack: Stack) -> None:
    async with flows.client(sim_stack.url) as http:
        await flows.leaving(http, "Tell me a long story.", maxTokens=200)


async def test_cancelling_keeps_what_there_was(sim_stack: Stack) -> None:
    async with flows.client(sim_stack.url) as http:
        request = {
            "message": "[[sim:length tokens=400]] [[sim:slow itl=0.05]] Talk on.",
            "stream": True,
        }
        async with http.stream("POST", "/chat", json=request) as response:
            seen = []
            async for event in flows.events(response):
                seen.append(event)
                if len(seen) == 3:
                    run = seen[0].data["runID"]
                    cancelled = await http.post(f"/runs/{run}/cancel")
                    assert cancelled.status_code == 202
        assert seen[-1].name == "done", seen[-1]
        message = seen[-1].data["message"]
        assert message["finishReason"] == "cancelled"
        assert message["content"] == flows.joined_text(seen)


async def test_many_chats_at_once_do_not_mix(sim_stack: Stack) -> None:
    async with flows.client(sim_stack.url) as http:
        streams = [
            flows.stream(http, "/chat", f"Question {n}", options={"cache": "bypass"})
            for n in range(24)
        ]
        for n, events in enumerate(await asyncio.gather(*streams)):
            done = events[-1].data
            assert flows.joined_text(events) == done["message"]["content"]
            stored = (await http.get(f"/chat/{done['chatID']}")).json()
            assert stored["messages"][0]["content"] == f"Question {n}"
            assert stored["messages"][1]["content"] == done["message"]["content"]


async def test_chats_survive_a_restart_of_everything(make_stack: MakeStack) -> None:
    stack = await make_stack(own_mongodb=True)
    async with flows.client(stack.url) as http:
        first = await flows.ask(http, "/chat", "Will you remember?")
        before = (await http.get(f"/chat/{first['chatID']}")).json()
    for name in reversed(stack.names_of("gateway") + stack.names_of("session")):
        await stack.stop_one(name)
    for name in ("mongodb", "valkey"):
        await stack.restart(name)
    for name in stack.names_of("session") + stack.names_of("gateway"):
        await stack.start_one(name)
    async with flows.client(stack.url) as http:
        assert (await http.get(f"/chat/{first['chatID']}")).json() == before
        second = await flows.ask(http, f"/chat/{first['chatID']}/completion", "And now?")
        assert second["context"]["messagesIncluded"] == 3
