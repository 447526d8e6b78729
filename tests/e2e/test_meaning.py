"""Questions that mean the same, and many who ask the same at once, through the whole platform."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import httpx
import pytest

from e2e import flows
from parley_devstack.errors import SetupError
from parley_devstack.stack import Stack
from support.embedding import embedding_model_folder
from support.poll import until
from support.sse import joined_text
from support.stack import LendMongoDB, running, sim_config

# Generous: these tests are about answers, not about time.
PATIENT = {
    "session": {"PARLEY_SESSION_CACHE_LOOKUP_TIMEOUT_SECONDS": "5"},
    "cache": {
        "PARLEY_CACHE_SEMANTIC": "on",
        "PARLEY_CACHE_LOOKUP_TIMEOUT_SECONDS": "4",
        "PARLEY_CACHE_EMBEDDING_TIMEOUT_SECONDS": "3",
    },
}
OPTIONS = {"temperature": 0}
ASKED = "How do I reset my password?"
ALIKE = "How can I reset my password?"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, lend_mongodb: LendMongoDB) -> Iterator[Stack]:
    """Two sessions and caches, with the embedding model."""
    try:
        embedding_model_folder()
    except SetupError as why:
        pytest.skip(f"no embedding model: {why}")
    folder = tmp_path_factory.mktemp("meaning")
    with lend_mongodb() as lent:
        yield from running(Stack(sim_config(folder, sessions=2, caches=2, env=PATIENT, **lent)))


async def test_a_paraphrase_is_a_semantic_hit_and_its_trap_twin_is_not(stack: Stack) -> None:
    async with (
        flows.client(stack.url) as http,
        flows.client(stack.url, user="bob") as bob,
    ):
        first = await flows.ask(http, "/chat", ASKED, options=OPTIONS)
        assert first["cache"]["status"] == "miss"
        trap_twin = "How do I avoid resetting my password?"
        trap = await flows.ask(http, "/chat", trap_twin, options=OPTIONS)
        assert trap["cache"]["status"] == "miss", trap["cache"]
        theirs = await flows.ask(bob, "/chat", ALIKE, options=OPTIONS)
        assert theirs["cache"]["status"] == "miss"

        # The hit streams, says why, and is a message of its chat like any other.
        await until(lambda: _index_holds(stack, 2), what="both caches to hear of it", timeout=20)
        seen = await flows.stream(http, "/chat", ALIKE, options=OPTIONS)
        done = seen[-1].data
        assert done["cache"]["status"] == "semantic", done["cache"]
        assert 0.5 < done["cache"]["similarity"] <= 1.0
        assert re.fullmatch(r"[a-z_]+", done["cache"]["reason"])
        assert joined_text(seen) == first["message"]["content"] == done["message"]["content"]
        stored = (await http.get(f"/chat/{done['chatID']}")).json()["messages"]
        assert stored[-1]["content"] == first["message"]["content"]

        for mode, status in {"bypass": "bypass", "refresh": "miss"}.items():
            other = await flows.ask(
                http,
                "/chat",
                "What can I do to reset my password?",
                options={**OPTIONS, "cache": mode},
            )
            assert other["cache"]["status"] == status

        # Rating the copy down takes the source out of use, for good and at once.
        rated = await http.post(
            f"/chat/{done['chatID']}/messages/{done['message']['messageID']}/feedback",
            json={"rating": "down"},
        )
        assert rated.status_code == 204
        again = await flows.ask(http, "/chat", ASKED, options=OPTIONS)
        assert again["cache"]["status"] == "miss", again["cache"]


async def _index_holds(stack: Stack, least: int) -> bool:
    """Whether every cache replica has so many vectors."""
    for name in ("cache-1", "cache-2"):
        async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
            text = (await http.get(f"http://{stack.plan(name).admin}/metrics")).text
        found = re.search(r"^parley_cache_index_items (\S+)", text, re.MULTILINE)
        if found is None or float(found[1]) < least:
            return False
    return True


async def test_twenty_who_ask_the_same_at_once_cost_one_generation(stack: Stack) -> None:
    async with flows.client(stack.url) as http:
        answers = await asyncio.gather(
            *(
                flows.ask(http, "/chat", "Why do herons stand on one leg?", options=OPTIONS)
                for _ in range(20)
            )
        )
    statuses = sorted(answer["cache"]["status"] for answer in answers)
    assert statuses == ["exact"] * 19 + ["miss"]
    assert len({answer["message"]["content"] for answer in answers}) == 1
    assert len({answer["chatID"] for answer in answers}) == 20
