"""Answers that a tenant's users may share, through the whole platform: with whom, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e import flows
from e2e.test_keys import make_key
from parley_devstack.stack import Stack
from support.stack import LendMongoDB, running, sim_config

GREEDY = {"temperature": 0}
QUESTION = "Why do herons stand on one leg?"
PERSONAL = "Why does my invoice for ada@example.com list two items?"


@pytest.fixture(scope="module")
def tenants(
    tmp_path_factory: pytest.TempPathFactory, lend_mongodb: LendMongoDB
) -> Iterator[tuple[Stack, str, str]]:
    """A platform whose tenants' users may be given each other's answers; keys of two tenants."""
    folder = tmp_path_factory.mktemp("sharing")
    file = folder / "keys.json"
    acme, other = (make_key(file, "--tenant", tenant) for tenant in ("acme", "other"))
    env = {
        "gateway": {"PARLEY_GATEWAY_KEYS_FILE": str(file)},
        "session": {"PARLEY_SESSION_CACHE_SCOPE": "global"},
        "cache": {"PARLEY_CACHE_GLOBAL_SCOPE": "true", "PARLEY_CACHE_GLOBAL_LEAST_ASKERS": "4"},
    }
    with lend_mongodb() as lent:
        for stack in running(Stack(sim_config(folder, auth="keys", sessions=2, env=env, **lent))):
            yield stack, acme, other


async def ask(stack: Stack, key: str, user: str, question: str) -> dict[str, Any]:
    """Ask in a new chat, as one of a tenant's users."""
    async with flows.client(stack.url, key=key) as http:
        return await flows.ask(http, f"/chat?userID={user}", question, options=GREEDY)


async def test_what_three_users_asked_the_fourth_gets_and_no_other_tenant(
    tenants: tuple[Stack, str, str],
) -> None:
    stack, acme, other = tenants

    asked = [await ask(stack, acme, user, QUESTION) for user in ("ada", "bob", "cyd")]
    assert [answer["cache"]["status"] for answer in asked] == ["miss"] * 3
    assert {answer["cache"]["reason"] for answer in asked[1:]} == {"too_few_askers"}
    # Whoever made an answer is given it again; that makes no asker more.
    again = await ask(stack, acme, "ada", QUESTION)

    fourth = await ask(stack, acme, "dee", QUESTION)
    assert fourth["cache"]["status"] == "exact", fourth["cache"]
    assert fourth["message"]["content"] in {a["message"]["content"] for a in [*asked, again]}
    assert fourth["chatID"] not in {answer["chatID"] for answer in [*asked, again]}

    for user in ("ada", "bob", "dee"):
        theirs = await ask(stack, other, user, QUESTION)
        assert theirs["cache"]["status"] == "miss", theirs["cache"]


async def test_what_seems_personal_is_shared_with_nobody(tenants: tuple[Stack, str, str]) -> None:
    stack, acme, _ = tenants

    asked = [await ask(stack, acme, user, PERSONAL) for user in ("ada", "bob", "cyd", "dee")]

    assert [answer["cache"]["status"] for answer in asked] == ["miss"] * 4
    # It stays in its own user's scope.
    assert (await ask(stack, acme, "dee", PERSONAL))["cache"]["status"] == "exact"
