"""What chats are, on the whole platform: titles, expiry, history, ratings, pages."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from e2e import flows
from parley_devstack.stack import Stack
from support.poll import until

BRIEF = {"maxTokens": 8, "cache": "bypass"}


async def test_a_title_is_given_or_made_and_can_be_changed(sim_stack: Stack) -> None:
    async with flows.client(sim_stack.url, user="titles") as http:
        made = await flows.ask(http, "/chat", "What is a title? It names.", options=BRIEF)
        assert made["title"] == "What is a title?"
        given = await flows.ask(http, "/chat", "Whatever.", title="As given", options=BRIEF)
        assert given["title"] == "As given"
        chat = f"/chat/{made['chatID']}"
        changed = await http.patch(chat, json={"title": "Changed"})
        assert (changed.status_code, changed.json()["title"]) == (200, "Changed")
        await flows.ask(http, f"{chat}/completion", "Does it stay?", options=BRIEF)
        assert (await http.get(chat)).json()["title"] == "Changed"
        # Latest update first.
        listed = (await http.get("/chats")).json()["chats"]
        assert [found["title"] for found in listed] == ["Changed", "As given"]
        assert [found["messageCount"] for found in listed] == [4, 2]


@pytest.mark.parametrize(
    ("options", "included", "dropped"),
    [
        ({"historyTurns": 0}, 1, 4),
        ({"historyTurns": 1}, 3, 2),
        ({"historyTurns": 9}, 5, 0),
        ({"history": "full"}, 5, 0),
    ],
)
async def test_the_model_sees_as_much_of_a_chat_as_was_asked_for(
    sim_stack: Stack, options: dict[str, Any], included: int, dropped: int
) -> None:
    async with flows.client(sim_stack.url, user="history") as http:
        first = await flows.ask(http, "/chat", "One.", options=BRIEF)
        chat = f"/chat/{first['chatID']}"
        await flows.ask(http, f"{chat}/completion", "Two.", options=BRIEF)
        third = await flows.ask(http, f"{chat}/completion", "Three.", options={**BRIEF, **options})
        context = third["context"]
        assert (context["messagesIncluded"], context["messagesDropped"]) == (included, dropped)
        assert context["strategy"] == options.get("history", "truncate")
        stored = (await http.get(chat)).json()["messages"]
        sent = [(m["role"], m["content"]) for m in stored[5 - included : 5]]
        counted = await flows.count_prompt(sim_stack.plan("inference-1").grpc, sent)
        assert third["usage"]["promptTokens"] == counted


async def test_a_long_history_is_cut_to_fit_or_refused(sim_stack: Stack) -> None:
    long = "word " * 3600
    async with flows.client(sim_stack.url, user="long") as http:
        window = (await flows.models(http))[0]["contextLength"]
        first = await flows.ask(http, "/chat", long, options=BRIEF)
        path = f"/chat/{first['chatID']}/completion"
        await flows.ask(http, path, long, options={**BRIEF, "historyTurns": 0})
        full = await http.post(path, json={"message": long, "options": {"history": "full"}})
        assert (full.status_code, full.json()["code"]) == (422, "context_too_long")
        cut = await flows.ask(http, path, long, options=BRIEF)
        assert cut["context"]["messagesDropped"] >= 2
        assert cut["context"]["messagesIncluded"] + cut["context"]["messagesDropped"] == 5
        assert cut["usage"]["promptTokens"] + BRIEF["maxTokens"] <= window  # type: ignore[operator]


async def test_a_chat_past_its_time_is_gone_with_all_that_it_held(sim_stack: Stack) -> None:
    async with flows.client(sim_stack.url, user="expiry") as http:
        made = await flows.ask(http, "/chat", "How long?", ttlSeconds=2, options=BRIEF)
        assert made["expiresAt"] > made["createdAt"]
        chat, run = made["chatID"], made["runID"]

        async def gone() -> bool:
            return (await http.get(f"/chat/{chat}")).status_code == 404

        await until(gone, timeout=10, what="the chat's expiry")
        assert (await http.get(f"/runs/{run}")).status_code == 404
        more = await http.post(f"/chat/{chat}/completion", json={"message": "More?"})
        assert more.status_code == 404
        assert (await http.get("/chats")).json()["chats"] == []

    client: MongoClient[dict[str, Any]] = MongoClient(sim_stack.mongodb_uri, timeoutMS=5000)
    with client:
        database = client[sim_stack.config.mongodb_database]

        def swept() -> bool:
            held = [database[name].count_documents({"chat": chat}) for name in ("messages", "runs")]
            return held == [0, 0]

        await until(swept, timeout=20, what="its messages and runs removed")


async def test_a_rating_is_stored_with_the_answer_that_it_is_of(sim_stack: Stack) -> None:
    async with flows.client(sim_stack.url, user="rates") as http:
        made = await flows.ask(http, "/chat", "Good?", options=BRIEF)
        answer = f"/chat/{made['chatID']}/messages/{made['message']['messageID']}/feedback"
        assert (await http.post(answer, json={"rating": "up"})).status_code == 204
        assert stored_rating(sim_stack, made["message"]["messageID"]) == "up"
        assert (await http.post(answer, json={"rating": "down"})).status_code == 204
        assert stored_rating(sim_stack, made["message"]["messageID"]) == "down"
        for place in (f"{made['chatID']}-0", f"{made['chatID']}-7", "nonsense"):
            path = f"/chat/{made['chatID']}/messages/{place}/feedback"
            refused: httpx.Response = await http.post(path, json={"rating": "up"})
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found"), place


def stored_rating(stack: Stack, message: str) -> str:
    """What the store keeps of an answer's rating."""
    client: MongoClient[dict[str, Any]] = MongoClient(stack.mongodb_uri, timeoutMS=5000)
    with client:
        found = client[stack.config.mongodb_database]["messages"].find_one({"_id": message})
    assert found is not None
    return str(found.get("rating"))


async def test_a_schema_that_the_engine_cannot_follow_is_refused_and_nothing_is_stored(
    sim_stack: Stack,
) -> None:
    async with flows.client(sim_stack.url, user="schemas") as http:
        schema = {"type": "object", "properties": {"a": {"type": "string"}}}
        refused = await http.post(
            "/chat", json={"message": "Hello.", "options": {"responseFormat": schema}}
        )
        assert refused.status_code == 422
        assert refused.json()["code"] == "invalid_request"
        assert [e["field"] for e in refused.json()["errors"]] == ["options.responseFormat"]
        assert (await http.get("/chats")).json()["chats"] == []
