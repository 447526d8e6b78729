"""Keys end to end: two tenants on one platform, whose stores and caches are the same ones."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from e2e import flows
from parley_devstack.paths import checkout
from parley_devstack.stack import Stack
from support.stack import LendMongoDB, running, sim_config

GREEDY = {"temperature": 0}
POSITIONS = ("", "?lastEventID=0", "?lastEventID=3", "?lastEventID=999999", "?lastEventID=end")
TODAY = datetime.now(UTC).date()
ALWAYS = {"from": str(TODAY - timedelta(days=1)), "to": str(TODAY + timedelta(days=1))}


def _routes_with_ids() -> set[tuple[str, str]]:
    """Every call on something that belongs to somebody."""
    contract = json.loads((checkout().root / "docs" / "api" / "openapi.json").read_text())
    return {
        (method.upper(), path)
        for path, calls in contract["paths"].items()
        for method in calls
        if "{" in path and method in ("get", "post", "patch", "put", "delete")
    }


def _template(path: str, ids: dict[str, str]) -> str:
    """A path as the contract writes it."""
    path = path.partition("?")[0]
    for one in sorted(ids, key=len, reverse=True):
        path = path.replace(one, ids[one])
    return path


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
def keys(tmp_path_factory: pytest.TempPathFactory, lend_mongodb: LendMongoDB) -> Iterator[Keys]:
    folder = tmp_path_factory.mktemp("keys")
    file = folder / "keys.json"
    made = Keys(
        url="",
        acme=make_key(file, "--tenant", "acme"),
        acme_ada=make_key(file, "--tenant", "acme", "--user", "ada"),
        other=make_key(file, "--tenant", "other"),
    )
    env = {"gateway": {"PARLEY_GATEWAY_KEYS_FILE": str(file)}}
    with lend_mongodb() as lent:
        for stack in running(Stack(sim_config(folder, auth="keys", sessions=2, env=env, **lent))):
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
            *(("GET", f"{run}/events{position}", None) for position in POSITIONS),
            ("POST", f"{run}/cancel", None),
            ("DELETE", chat, None),
        ]
        ids = {
            chat: "/chat/{chatID}",
            run: "/runs/{runID}",
            mine["message"]["messageID"]: "{messageID}",
        }
        assert _routes_with_ids() == {(method, _template(path, ids)) for method, path, _ in tries}
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

        async def runs(client: httpx.AsyncClient, user: str) -> int:
            days = (await client.get("/usage", params={**ALWAYS, "userID": user})).json()["days"]
            return sum(day["runs"] for day in days)

        # What is counted is counted for whose it is.
        assert [await runs(acme, "ada"), await runs(other, "ada")] == [3, 1]
        assert [await runs(acme, "eve"), await runs(other, "eve")] == [0, 0]


async def test_a_run_in_progress_is_neither_read_nor_stopped_by_others(keys: Keys) -> None:
    async with (
        flows.client(keys.url, key=keys.acme) as acme,
        flows.client(keys.url, key=keys.other) as other,
    ):
        slow = "[[sim:length tokens=60]] [[sim:slow itl=0.05]] Take your time."
        body = {"message": slow, "background": True}
        key = {"Idempotency-Key": "ours"}
        begun = await acme.post("/chat?userID=ada", json=body, headers=key)
        assert begun.status_code == 202
        run = f"/runs/{begun.json()['runID']}"
        for stranger, user in ((other, "ada"), (other, "eve"), (acme, "eve")):
            params = {"userID": user}
            for method, path in (("GET", run), ("GET", f"{run}/events"), ("POST", f"{run}/cancel")):
                answer = await stranger.request(method, path, params=params)
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
            # The same request under the same key is theirs, and another run.
            theirs = await stranger.post("/chat", json=body, headers=key, params=params)
            assert theirs.status_code == 202
            assert theirs.json()["runID"] != begun.json()["runID"]
            await stranger.post(f"/runs/{theirs.json()['runID']}/cancel", params=params)
        mine = (await acme.get(run, params={"userID": "ada"})).json()
        assert mine["state"] in ("queued", "running", "completed")
        ended = await acme.get(f"{run}/events", params={"userID": "ada"}, timeout=30)
        assert ended.text.rstrip().rpartition("event: ")[2].startswith("done")


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
