"""What a user does, as coroutines over a base URL: the same on `sim` and on vLLM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import httpx
from parley.inference.v1 import inference_pb2 as inference
from parley.inference.v1 import inference_pb2_grpc as inference_grpc

from support.poll import until
from support.sse import Event, events, joined_text

# One answer on two busy cores.
ANSWER_SECONDS = 60.0

_ROLES = {
    "system": inference.ROLE_SYSTEM,
    "user": inference.ROLE_USER,
    "assistant": inference.ROLE_ASSISTANT,
}


@asynccontextmanager
async def client(url: str, *, user: str = "ada", key: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """A caller of the REST API."""
    headers = {"Authorization": f"Bearer {key}"} if key else {"X-User-ID": user}
    async with httpx.AsyncClient(
        base_url=url,
        headers=headers,
        timeout=ANSWER_SECONDS,
        verify=False,  # there is no TLS, and a context for it is dear
    ) as http:
        yield http


async def ask(http: httpx.AsyncClient, path: str, message: str, **body: Any) -> dict[str, Any]:
    """Ask for a JSON answer."""
    response = await http.post(path, json={"message": message, **body})
    assert response.status_code in (200, 201), response.text
    answer: dict[str, Any] = response.json()
    return answer


async def models(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The models that the fleet serves now."""
    response = await http.get("/models")
    assert response.status_code == 200, response.text
    listed: list[dict[str, Any]] = response.json()["models"]
    return listed


async def stream(http: httpx.AsyncClient, path: str, message: str, **body: Any) -> list[Event]:
    """Ask for a streamed answer, and read it to its end."""
    request = {"message": message, "stream": True, **body}
    async with http.stream("POST", path, json=request) as response:
        assert response.status_code in (200, 201), await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        return [event async for event in events(response)]


async def two_turns(http: httpx.AsyncClient, engine_address: str, **options: Any) -> None:
    """The second prompt holds the first turn, and its prefix is warm."""
    system = "You are a careful assistant. " * 8
    first = await ask(
        http, "/chat", "Name three colours of the rainbow.", system=system, options=options
    )
    chat = f"/chat/{first['chatID']}"
    seen = await stream(http, f"{chat}/completion", "Which comes first?", options=options)

    assert [seen[0].name, seen[-1].name] == ["run", "done"]
    done = seen[-1].data
    assert joined_text(seen) == done["message"]["content"]
    assert done["context"]["messagesIncluded"] == 3
    assert done["context"]["messagesDropped"] == 0

    stored = (await http.get(chat)).json()
    assert [m["role"] for m in stored["messages"]] == ["user", "assistant"] * 2
    assert stored["messages"][-1]["content"] == done["message"]["content"]

    prompt = [("system", system)]
    prompt += [(m["role"], m["content"]) for m in stored["messages"][:3]]
    assert done["usage"]["promptTokens"] == await count_prompt(engine_address, prompt)
    assert 0 < done["usage"]["cachedPromptTokens"] < done["usage"]["promptTokens"]


async def count_prompt(engine_address: str, messages: list[tuple[str, str]]) -> int:
    """Ask the engine itself how many tokens a prompt of these messages has."""
    async with grpc.aio.insecure_channel(engine_address) as channel:
        engine = inference_grpc.InferenceServiceStub(channel)
        models = await engine.ListModels(inference.ListModelsRequest(), timeout=5)
        counted = await engine.CountTokens(
            inference.CountTokensRequest(
                model=models.models[0].model_id,
                messages=[
                    inference.ChatMessage(role=_ROLES[role], content=content)
                    for role, content in messages
                ],
            ),
            timeout=10,
        )
    return sum(counted.tokens) + counted.overhead_tokens


async def repeated_question(http: httpx.AsyncClient, question: str) -> tuple[str, str]:
    """A question asked again in another chat is an exact hit; the two chat ids."""
    first = await ask(http, "/chat", question, options={"maxTokens": 40, "temperature": 0})
    assert first["cache"]["status"] == "miss"
    seen = await stream(http, "/chat", question, options={"maxTokens": 40, "temperature": 0})
    done = seen[-1].data
    if first["message"]["finishReason"] == "stop":
        assert done["cache"]["status"] == "exact", done["cache"]
        assert joined_text(seen) == first["message"]["content"]
        bypass = await ask(
            http,
            "/chat",
            question,
            options={"maxTokens": 40, "temperature": 0, "cache": "bypass"},
        )
        assert bypass["cache"]["status"] == "bypass"
    else:  # a truncated answer is never given again
        assert done["cache"]["status"] == "miss", done["cache"]
    return first["chatID"], done["chatID"]


async def deletion(http: httpx.AsyncClient, question: str) -> None:
    """A deleted chat is gone, and so is its cached answer."""
    options = {"maxTokens": 40, "temperature": 0}
    first = await ask(http, "/chat", question, options=options)
    chat = f"/chat/{first['chatID']}"
    assert (await http.delete(chat)).status_code == 204
    assert (await http.get(chat)).status_code == 404
    assert (await http.get(f"/runs/{first['runID']}")).status_code == 404
    listed = (await http.get("/chats", params={"limit": 100})).json()["chats"]
    assert first["chatID"] not in [c["chatID"] for c in listed]
    again = await ask(http, "/chat", question, options=options)
    assert again["cache"]["status"] == "miss", again["cache"]


async def leaving(http: httpx.AsyncClient, message: str, **options: Any) -> None:
    """A client that leaves in mid-answer does not lose it."""
    request = {"message": message, "stream": True, "options": options}
    seen: list[Event] = []
    async with http.stream("POST", "/chat", json=request) as response:
        async for event in events(response):
            seen.append(event)
            if event.name == "delta":
                break
    assert seen[-1].name == "delta", seen
    run, chat = seen[0].data["runID"], seen[0].data["chatID"]

    async def ended() -> dict[str, Any] | None:
        found = (await http.get(f"/runs/{run}")).json()
        return found if found["state"] not in ("queued", "running") else None

    finished = await until(ended, timeout=ANSWER_SECONDS, what="the run's end")
    assert finished is not None
    assert finished["state"] == "completed", finished
    assert finished["message"]["content"].startswith(joined_text(seen))
    stored = (await http.get(f"/chat/{chat}")).json()["messages"]
    assert stored[-1]["content"] == finished["message"]["content"]
