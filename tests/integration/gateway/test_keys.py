"""AUTH=keys: tenants that cannot see each other, users, and a file that changes."""

import asyncio
from pathlib import Path

import pytest

from parley_gateway import keys
from parley_gateway.access.keyring import dump_key_file, new_key
from support.poll import until

from .conftest import StartStack

pytestmark = pytest.mark.integration


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def ring(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    made = {
        "acme": new_key("acme", None),
        "acme-ada": new_key("acme", "ada"),
        "other": new_key("other", None),
    }
    file = tmp_path / "keys.json"
    file.write_text(dump_key_file(record for _, record in made.values()))
    return file, {name: key for name, (key, _) in made.items()}


async def test_tenants_cannot_see_each_other(
    start_stack: StartStack, ring: tuple[Path, dict[str, str]]
) -> None:
    file, key = ring
    stack = await start_stack(auth="keys", keys_file=file)
    made = await stack.client.post("/chat", json={"message": "x"}, headers=_bearer(key["acme"]))
    assert made.status_code == 201
    chat = made.json()["chatID"]
    assert (
        await stack.client.get(f"/chat/{chat}", headers=_bearer(key["acme"]))
    ).status_code == 200
    writes = stack.memory.writes
    for method, path in (("GET", f"/chat/{chat}"), ("DELETE", f"/chat/{chat}")):
        response = await stack.client.request(method, path, headers=_bearer(key["other"]))
        assert response.json()["code"] == "not_found"
    listed = await stack.client.get("/chats", headers=_bearer(key["other"]))
    assert listed.json() == {"chats": []}
    assert stack.memory.writes == writes
    # Nobody is an owner by naming nobody.
    assert "parley-as-owner" not in stack.memory.last("DeleteChat")[1]


async def test_without_a_valid_key_nothing_is_served(
    start_stack: StartStack, ring: tuple[Path, dict[str, str]]
) -> None:
    file, key = ring
    stack = await start_stack(auth="keys", keys_file=file)
    good = key["acme"]
    for headers in (
        {},
        _bearer("nope"),
        _bearer(good[:-1]),
        _bearer(good[:-1] + ("a" if good[-1] != "a" else "b")),
        _bearer(good + "x" * 5000),
        _bearer(good.replace(good[7:23], "0" * 16)),
        {"Authorization": f"Basic {good}"},
        {"Authorization": good},
    ):
        # The body is not even looked at.
        response = await stack.client.post("/chat", content=b"{", headers=headers)
        assert response.status_code == 401
        assert response.json()["code"] == "unauthenticated"
        assert response.headers["www-authenticate"] == "Bearer"
    twice = [("Authorization", f"Bearer {good}")] * 2
    assert (await stack.client.get("/chats", headers=twice)).status_code == 401
    assert (await stack.client.get("/healthz")).status_code == 200
    assert not stack.memory.calls


async def test_a_key_fixed_to_a_user_is_that_user(
    start_stack: StartStack, ring: tuple[Path, dict[str, str]]
) -> None:
    file, key = ring
    stack = await start_stack(auth="keys", keys_file=file)
    ada = _bearer(key["acme-ada"])
    for params, headers in (({"userID": "eve"}, {}), ({}, {"X-User-ID": "eve"})):
        response = await stack.client.get("/chats", params=params, headers=ada | headers)
        assert response.status_code == 403
        assert response.json()["code"] == "user_not_allowed"
    body = {"message": "x", "userID": "eve"}
    assert (await stack.client.post("/chat", json=body, headers=ada)).status_code == 403
    assert not stack.memory.calls
    assert (await stack.client.get("/chats?userID=ada", headers=ada)).status_code == 200
    metadata = stack.memory.last("ListChats")[1]
    assert (metadata["parley-tenant"], metadata["parley-user-bin"]) == ("acme", b"ada")


async def test_a_key_for_all_users_names_them(
    start_stack: StartStack, ring: tuple[Path, dict[str, str]]
) -> None:
    file, key = ring
    stack = await start_stack(auth="keys", keys_file=file)
    await stack.client.get("/chats?userID=bob", headers=_bearer(key["acme"]))
    assert stack.memory.last("ListChats")[1]["parley-user-bin"] == b"bob"
    await stack.client.get("/chats", headers=_bearer(key["acme"]))
    assert stack.memory.last("ListChats")[1]["parley-user-bin"] == b"anonymous"


async def test_the_file_is_read_again_and_a_bad_one_keeps_the_last_good_keys(
    start_stack: StartStack,
    ring: tuple[Path, dict[str, str]],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    file, key = ring
    stack = await start_stack(auth="keys", keys_file=file, keys_check_seconds=0.05)
    first = _bearer(key["acme"])

    async def status(headers: dict[str, str]) -> int:
        return (await stack.client.get("/chats", headers=headers)).status_code

    assert await status(first) == 200
    file.write_text("{ not json")
    await until(lambda: "the last good keys stay valid" in caplog.text)
    assert await status(first) == 200

    record = new_key("acme", None)
    file.write_text(dump_key_file([record[1]]))

    async def swapped() -> bool:
        return await status(_bearer(record[0])) == 200 and await status(first) == 401

    await until(swapped)
    file.unlink()
    await until(lambda: caplog.text.count("the last good keys stay valid") == 2)
    assert await status(_bearer(record[0])) == 200
    create = ["create", "--tenant", "acme", "--file", str(file)]
    assert await asyncio.to_thread(keys.main, create) == 0
    made = capsys.readouterr().out.strip()

    async def made_is_valid() -> bool:
        return await status(_bearer(made)) == 200

    await until(made_is_valid)
