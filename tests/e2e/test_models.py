"""Several models on one platform: listed, chosen, refused by policy, and lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from e2e import flows
from e2e.test_keys import make_key
from parley_devstack.stack import Stack
from support.fake_upstream import MODEL as HOSTED
from support.fake_upstream import upstream_process
from support.poll import until
from support.stack import LendMongoDB, MakeStack, running, sim_config

pytestmark = pytest.mark.e2e

# The second by name: a default is no accident of the alphabet.
DEFAULT = "beta"
OWN = ["alpha", "beta"]


@dataclass(frozen=True)
class Platform:
    """Two models of its own, one of somebody else, and keys of tenants who may and may not."""

    stack: Stack
    free: str
    acme: str

    @asynccontextmanager
    async def caller(self, key: str) -> AsyncIterator[httpx.AsyncClient]:
        async with flows.client(self.stack.url, key=key) as http:
            yield http


@pytest.fixture(scope="module")
def platform(
    tmp_path_factory: pytest.TempPathFactory, lend_mongodb: LendMongoDB
) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("models")
    file = folder / "keys.json"
    keys = {tenant: make_key(file, "--tenant", tenant) for tenant in ("free", "acme")}
    with upstream_process() as upstream, lend_mongodb() as lent:
        env = {
            "gateway": {"PARLEY_GATEWAY_KEYS_FILE": str(file)},
            "session": {
                "PARLEY_SESSION_DEFAULT_MODEL": DEFAULT,
                "PARLEY_SESSION_ALLOWED_ENGINES_OF_TENANTS": '{"acme": "own"}',
            },
            "inference-1": {"PARLEY_INFERENCE_MODEL_ID": "alpha"},
            "inference-2": {"PARLEY_INFERENCE_MODEL_ID": "beta"},
            "inference-3": {
                "PARLEY_INFERENCE_ENGINE": "openai",
                "PARLEY_INFERENCE_MODEL": HOSTED,
                "PARLEY_INFERENCE_UPSTREAM_URL": upstream,
            },
        }
        stack = Stack(sim_config(folder, auth="keys", engines=3, env=env, **lent))
        for started in running(stack):
            yield Platform(started, **keys)


async def _listed(http: httpx.AsyncClient) -> list[str]:
    return [model["modelID"] for model in await flows.models(http)]


async def _all_there(platform: Platform) -> None:
    """Session looks at engines' models by itself: wait until it has."""
    async with platform.caller(platform.free) as http:

        async def listed() -> bool:
            return await _listed(http) == [*OWN, HOSTED]

        await until(listed, 15.0, "all models")


async def _refused(http: httpx.AsyncClient, path: str, **body: object) -> tuple[int, str]:
    response = await http.post(path, json=body)
    assert response.headers["content-type"].startswith("application/problem+json")
    return response.status_code, response.json()["code"]


async def test_each_model_answers_those_who_choose_it(platform: Platform) -> None:
    await _all_there(platform)
    async with platform.caller(platform.free) as http:
        for model in (*OWN, HOSTED):
            answer = await flows.ask(http, "/chat", f"Who are you, {model}?", model=model)
            chat = f"/chat/{answer['chatID']}"
            assert (await http.get(chat)).json()["model"] == model
            # A chat keeps its model.
            again = await flows.ask(http, f"{chat}/completion", "And now?")
            assert again["message"]["content"]
        unnamed = await flows.ask(http, "/chat", "Who are you?")
        assert (await http.get(f"/chat/{unnamed['chatID']}")).json()["model"] == DEFAULT


async def test_a_model_that_nobody_serves_is_refused_and_nothing_is_made(
    platform: Platform,
) -> None:
    await _all_there(platform)
    async with platform.caller(platform.free) as http:
        before = (await http.get("/chats")).json()
        for body in ({}, {"message": "Hello"}, {"message": "Hello", "stream": True}):
            refusal = await _refused(http, "/chat", model="no-such-model", **body)
            assert refusal == (422, "model_not_found")
        assert (await http.get("/chats")).json() == before


async def test_what_a_tenant_asks_does_not_leave_the_fleet_where_that_is_forbidden(
    platform: Platform,
) -> None:
    await _all_there(platform)
    async with platform.caller(platform.acme) as http:
        assert await _listed(http) == OWN
        for body in ({}, {"message": "Hello"}, {"message": "Hello", "background": True}):
            refusal = await _refused(http, "/chat", model=HOSTED, **body)
            assert refusal == (403, "model_not_allowed")
        assert (await http.get("/chats")).json() == {"chats": []}
        key = {"Idempotency-Key": "one-try"}
        refusal = await http.post("/chat", json={"message": "Hi", "model": HOSTED}, headers=key)
        assert refusal.status_code == 403
        assert "must not leave it" in refusal.json()["detail"]
        # The key was not used up by what was refused.
        answer = await http.post("/chat", json={"message": "Hi", "model": "alpha"}, headers=key)
        assert answer.status_code == 201, answer.text


async def test_a_model_whose_engines_are_gone_is_waited_for_and_others_go_on(
    platform: Platform,
) -> None:
    await _all_there(platform)
    stack = platform.stack
    async with platform.caller(platform.free) as http:
        made = await flows.ask(http, "/chat", "Before", model="alpha")
        await stack.kill("inference-1")
        try:

            async def unlisted() -> bool:
                return "alpha" not in await _listed(http)

            await until(unlisted, 15.0, "the model is not listed any more")
            response = await http.post(
                f"/chat/{made['chatID']}/completion", json={"message": "After"}
            )
            assert (response.status_code, response.json()["code"]) == (503, "engine_unavailable")
            assert int(response.headers["retry-after"]) > 0
            assert await _refused(http, "/chat", model="alpha", message="New") == (
                503,
                "engine_unavailable",
            )
            assert (await flows.ask(http, "/chat", "Others", model="beta"))["message"]["content"]
            assert (await http.get(f"/chat/{made['chatID']}")).json()["messageCount"] == 2
        finally:
            await stack.start_one("inference-1")
        await _all_there(platform)
        again = await flows.ask(http, f"/chat/{made['chatID']}/completion", "After")
        assert again["message"]["content"]


async def test_the_platform_runs_in_front_of_an_upstream(
    tmp_path: Path, make_stack: MakeStack
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-of-the-upstream\n")
    with upstream_process(key="sk-of-the-upstream") as upstream:
        stack = await make_stack(
            engine="openai",
            upstream=upstream,
            upstream_key_file=key,
            model=HOSTED,
            model_id="hosted",
        )
        async with flows.client(stack.url) as http:
            listed = await flows.models(http)
            assert [(m["modelID"], m["engine"]) for m in listed] == [("hosted", "openai")]
            answer = await flows.ask(http, "/chat", "Hello", options={"maxTokens": 12})
            assert answer["usage"]["completionTokens"] == 12
            seen = await flows.stream(http, f"/chat/{answer['chatID']}/completion", "More")
            assert seen[-1].name == "done"
