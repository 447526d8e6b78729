"""Retries, background runs and resuming, on the whole platform: two gateways, two sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import httpx
import pytest

from e2e import flows
from parley_devstack.stack import Stack
from parley_kit.ids import uuid7
from support.poll import until
from support.sse import Event, events, joined_text, parse
from support.stack import LendMongoDB, MakeStack, running, sim_config

# Takes about half a second to say.
SLOW = "[[sim:length tokens=10]] [[sim:slow itl=0.04]]"
# Its first event, a delta a token, its last.
SLOW_EVENTS = 12
ROUNDS = 3
# A holder that fell silent is taken over after a second.
QUICK = {"PARLEY_SESSION_LEASE_SECONDS": "1", "PARLEY_SESSION_SWEEP_SECONDS": "0.2"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, lend_mongodb: LendMongoDB) -> Iterator[Stack]:
    """Two gateways over two sessions."""
    folder = tmp_path_factory.mktemp("pair")
    with lend_mongodb() as lent:
        yield from running(Stack(sim_config(folder, gateways=2, sessions=2, **lent)))


@pytest.fixture
async def both(pair: Stack) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """A caller at each gateway."""
    async with flows.client(pair.urls[0]) as one, flows.client(pair.urls[1]) as other:
        yield one, other


Both = tuple[httpx.AsyncClient, httpx.AsyncClient]


def keyed() -> dict[str, str]:
    return {"Idempotency-Key": uuid7()}


# keys -------------------------------------------------------------------------


async def test_the_same_request_at_two_gateways_at_once_is_one_run(both: Both) -> None:
    for number in range(12):
        key, body = keyed(), {"message": f"Once only, {number}", "options": {"cache": "bypass"}}
        answers = await asyncio.gather(
            *(http.post("/chat", json=body, headers=key) for http in (*both, *both))
        )
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.text for answer in answers}) == 1
        assert len({answer.headers["location"] for answer in answers}) == 1
        assert sum("idempotent-replayed" in answer.headers for answer in answers) == 3
        path = f"{answers[0].headers['location']}/completion"
        again = keyed()
        turns = await asyncio.gather(
            *(http.post(path, json=body, headers=again) for http in (*both, *both))
        )
        assert {turn.status_code for turn in turns} == {200}
        assert len({turn.text for turn in turns}) == 1
        chat = (await both[1].get(answers[0].headers["location"])).json()
        assert [message["role"] for message in chat["messages"]] == ["user", "assistant"] * 2


async def test_a_retry_attaches_to_the_running_answer(both: Both) -> None:
    key, body = keyed(), {"message": SLOW, "stream": True, "options": {"cache": "bypass"}}

    async def read(http: httpx.AsyncClient) -> list[Event]:
        async with http.stream("POST", "/chat", json=body, headers=key) as response:
            assert response.status_code == 201
            return [event async for event in events(response)]

    first, second = await asyncio.gather(*(read(http) for http in both))
    assert first[0].data == second[0].data
    assert joined_text(first) == joined_text(second) == first[-1].data["message"]["content"]
    assert first[-1].data == second[-1].data


async def test_a_retry_after_deletion_finds_nothing(both: Both) -> None:
    key, body = keyed(), {"message": "Forget me"}
    first = await both[0].post("/chat", json=body, headers=key)
    assert (await both[1].delete(first.headers["location"])).status_code == 204
    assert (await both[0].post("/chat", json=body, headers=key)).status_code == 404


async def test_a_key_is_its_users_own(pair: Stack, both: Both) -> None:
    key, body = keyed(), {"message": "Whose?"}
    mine = await both[0].post("/chat", json=body, headers=key)
    async with flows.client(pair.urls[1], user="bob") as bob:
        theirs = await bob.post("/chat", json={"message": "Mine."}, headers=key)
    assert theirs.status_code == 201
    assert theirs.json()["chatID"] != mine.json()["chatID"]
    other = await both[1].post("/chat", json={"message": "Else?"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


# background -------------------------------------------------------------------


async def test_a_background_run_is_followed_where_its_location_says(both: Both) -> None:
    body = {"message": SLOW, "background": True, "options": {"cache": "bypass"}}
    response = await both[0].post("/chat", json=body)
    assert response.status_code == 202
    assert response.headers["location"] == f"/runs/{response.json()['runID']}"
    async with both[1].stream("GET", f"{response.headers['location']}/events") as stream:
        seen = [event async for event in events(stream)]
    assert [seen[0].name, seen[-1].name] == ["run", "done"]
    run = (await both[0].get(response.headers["location"])).json()
    assert run["state"] == "completed"
    assert run["message"]["content"] == joined_text(seen)


# resuming ---------------------------------------------------------------------


def _whole_events(got: bytes) -> list[Event]:
    """The events of a stream's beginning that have come to their end."""
    blocks = got.decode(errors="ignore").split("\n\n")[:-1]
    return [parse(block) for block in blocks if not block.startswith(":")]


@dataclass(frozen=True)
class Cut:
    """Where a stream is cut: after `whole` events, or before the end of those that are `lost`."""

    whole: int
    lost: int
    # The gateway that is read first; the stream is resumed at the other one.
    first: int

    @staticmethod
    def anywhere(events: int) -> list[Cut]:
        """Before, within and after each event, at either gateway."""
        kinds = product(range(events + 1), (0, 1), (0, 1))
        return [Cut(whole, lost, first) for whole, lost, first in kinds]


async def _cut(http: httpx.AsyncClient, path: str, cut: Cut) -> list[Event]:
    """Read a stream up to a cut, and drop the connection; the whole events of it."""
    got = b""
    async with http.stream("GET", path) as response:
        if cut.whole + cut.lost:
            async for chunk in response.aiter_raw():
                got += chunk
                if len(_whole_events(got)) >= cut.whole + cut.lost:
                    break
    return _whole_events(got)[: cut.whole]


async def _resumed(both: Both, path: str, cut: Cut) -> list[Event]:
    """Read a stream that is cut and resumed, at the other gateway, to its end."""
    seen = await _cut(both[cut.first], path, cut)
    headers = {"Last-Event-ID": seen[-1].id} if seen else {}
    async with both[1 - cut.first].stream("GET", path, headers=headers) as response:
        if response.status_code == 204:
            assert seen[-1].id == "end"
            return seen
        assert response.status_code == 200
        return [*seen, *[event async for event in events(response)]]


def _judge(seen: list[Event], done: dict[str, Any]) -> None:
    assert joined_text(seen) == done["message"]["content"]
    assert [event.name for event in seen if event.id == "end"] == ["done"]
    assert seen[-1].data == done


async def test_a_running_stream_cut_anywhere_and_resumed_reads_the_same(both: Both) -> None:
    for _ in range(ROUNDS):
        body = {"message": SLOW, "background": True, "options": {"cache": "bypass"}}
        path = f"/runs/{(await both[0].post('/chat', json=body)).json()['runID']}/events"
        whole, *resumed = await asyncio.gather(
            both[0].get(path), *(_resumed(both, path, cut) for cut in Cut.anywhere(SLOW_EVENTS))
        )
        done = _whole_events(whole.content)[-1].data
        for seen in resumed:
            _judge(seen, done)


async def test_a_stored_stream_cut_anywhere_and_resumed_reads_the_same(both: Both) -> None:
    run = (await flows.ask(both[0], "/chat", "Grüße, please."))["runID"]
    path = f"/runs/{run}/events"
    whole = (await both[0].get(path)).content
    known = _whole_events(whole)
    assert not known[1].data["text"].isascii()
    # Any byte leaves the whole events before it: who is cut at each event is cut at each byte.
    for at in range(len(whole) + 1):
        assert _whole_events(whole[:at]) == known[: whole[:at].count(b"\n\n")]
    for seen in await asyncio.gather(*(_resumed(both, path, c) for c in Cut.anywhere(len(known)))):
        _judge(seen, known[-1].data)


async def test_a_dead_session_is_a_pause_for_its_readers(make_stack: MakeStack) -> None:
    stack = await make_stack(sessions=2, env={"session": QUICK})
    message = "[[sim:length tokens=60]] [[sim:slow itl=0.03]]"
    async with flows.client(stack.url) as http:
        seen: list[list[Event]] = [[] for _ in range(12)]

        async def read(number: int) -> None:
            body = {"message": f"{message} {number}", "stream": True}
            async with http.stream("POST", "/chat", json=body) as response:
                async for event in events(response):
                    seen[number].append(event)

        async with asyncio.TaskGroup() as readers:
            for number in range(len(seen)):
                readers.create_task(read(number))
            await until(lambda: all(len(each) > 5 for each in seen), what="text everywhere")
            await stack.kill("session-1")
        for each in seen:
            assert [each[0].name, each[-1].name] == ["run", "done"]
            assert joined_text(each) == each[-1].data["message"]["content"]
            run = (await http.get(f"/runs/{each[0].data['runID']}")).json()
            assert run["message"]["content"] == joined_text(each)


# whose ------------------------------------------------------------------------


async def test_others_see_neither_runs_nor_usage(pair: Stack, both: Both) -> None:
    run = (await flows.ask(both[0], "/chat", "Private."))["runID"]
    async with flows.client(pair.url, user="mallory") as mallory:
        for position in ("0", "3", "end", "999999"):
            response = await mallory.get(f"/runs/{run}/events", headers={"Last-Event-ID": position})
            assert response.status_code == 404, position
        assert (await mallory.get("/usage", params=_today())).json() == {"days": []}


async def test_usage_adds_up_and_outlives_what_is_deleted(pair: Stack) -> None:
    user = f"user-{uuid7()}"
    async with flows.client(pair.url, user=user) as http:
        options = {"temperature": 0}
        answers = [
            await flows.ask(http, "/chat", "Count me.", options=options),
            await flows.ask(http, "/chat", "Count me.", options=options),
        ]
        path = f"/chat/{answers[0]['chatID']}/completion"
        answers.append(await flows.ask(http, path, "And me."))
        await http.post("/chat", json={"title": "empty"})
        await http.delete(f"/chat/{answers[0]['chatID']}")
        days = (await http.get("/usage", params=_today())).json()["days"]
        assert sum(day["chats"] for day in days) == 3
        assert sum(day["runs"] for day in days) == 3
        assert sum(day["cachedAnswers"] for day in days) == 1
        for name in ("promptTokens", "completionTokens"):
            said = sum(answer["usage"][name] for answer in answers)
            assert sum(day[name] for day in days) == said


def _today() -> dict[str, str]:
    today = datetime.now(UTC).date()
    return {"from": str(today - timedelta(days=1)), "to": str(today + timedelta(days=1))}
