"""Keys end to end: two tenants on one platform, whose stores and caches are the same ones."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from e2e import flows
from parley_devstack.stack import Stack
from support.stack import running, sim_config

GREEDY = {"temperature": 0}


def make_key(file: Path, *options: str) -> str:
    """Make a key with the command that an operator has; the key that it prints once."""
    command = [sys.executable, "-m", "parley_gateway.keys", "create", "--file", str(file)]
    made = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=60, check=True
    )
    return made.stdout.strip()


@dataclass(frozen=True)
class Keys:
    """A platform's address, and keys to it."""

    url: str
    acme: str
    acme_ada: str
    other: str


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    folder = tmp_path_factory.mktemp("keys")
    file = folder / "keys.json"
    made = Keys(
        url="",
        acme=make_key(file, "--tenant", "acme"),
        acme_ada=make_key(file, "--tenant", "acme", "--user", "ada"),
        other=make_key(file, "--tenant", "other"),
    )
    env = {"gateway": {"PARLEY_GATEWAY_KEYS_FILE": str(file)}}
    for stack in running(Stack(sim_config(folder, auth="keys", sessions=2, env=env))):
        yield dataclasses.replace(made, url=stack.url)


async def test_two_tenants_share_a_platform_and_see_nothing_of_each_other(keys: Keys) -> None:
    async with (
        flows.client(keys.url, key=keys.acme) as acme,
        flows.client(keys.url, key=keys.other) as other,
        httpx.AsyncClient(base_url=keys.url) as nobody,
    ):
        refused = await nobody.post("/chat", json={"message": "Let me in."})
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")

        # The same user name, the same question: neither makes them the same.
        mine = await flows.ask(acme, "/chat?userID=ada", "What is ours?", options=GREEDY)
        again = await flows.ask(acme, "/chat?userID=ada", "What is ours?", options=GREEDY)
        theirs = await flows.ask(other, "/chat?userID=ada", "What is ours?", options=GREEDY)
        assert again["cache"]["status"] == "exact"
        assert theirs["cache"]["status"] == "miss"

        chat, run = f"/chat/{mine['chatID']}", f"/runs/{mine['runID']}"
        feedback = f"{chat}/messages/{mine['message']['messageID']}/feedback"
        tries = [
            ("GET", chat, None),
            ("PATCH", chat, {"title": "Ours now"}),
            ("POST", f"{chat}/completion", {"message": "And this?"}),
            ("POST", feedback, {"rating": "down"}),
            ("GET", run, None),
            ("POST", f"{run}/cancel", None),
            ("DELETE", chat, None),
        ]
        before = (await acme.get(f"{chat}?userID=ada")).json()
        for user in ("ada", "eve"):
            for method, path, body in tries:
                answer = await other.request(method, path, params={"userID": user}, json=body)
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        # Nor does another user of the same tenant, or one that names nobody.
        for params in ({"userID": "eve"}, {}):
            for method, path, body in tries:
                answer = await acme.request(method, path, params=params, json=body)
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        assert (await acme.get(f"{chat}?userID=ada")).json() == before
        still = await flows.ask(acme, "/chat?userID=ada", "What is ours?", options=GREEDY)
        assert still["cache"]["status"] == "exact"

        listed = (await other.get("/chats", params={"userID": "ada"})).json()["chats"]
        assert [found["chatID"] for found in listed] == [theirs["chatID"]]


async def test_a_key_fixed_to_a_user_reaches_that_users_chats_alone(keys: Keys) -> None:
    async with (
        flows.client(keys.url, key=keys.acme) as application,
        flows.client(keys.url, key=keys.acme_ada) as ada,
    ):
        hers = await flows.ask(application, "/chat?userID=ada", "Whose is this?")
        his = await flows.ask(application, "/chat?userID=bob", "Whose is that?")
        assert (await ada.get(f"/chat/{hers['chatID']}")).status_code == 200
        assert (await ada.get(f"/chat/{his['chatID']}")).status_code == 404
        refused = await ada.get(f"/chat/{his['chatID']}", params={"userID": "bob"})
        assert (refused.status_code, refused.json()["code"]) == (403, "user_not_allowed")
        listed = (await ada.get("/chats")).json()["chats"]
        ids = {found["chatID"] for found in listed}
        assert hers["chatID"] in ids
        assert his["chatID"] not in ids
