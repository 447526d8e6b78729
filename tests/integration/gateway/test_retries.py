"""Keys, background runs, attaching by hand, and usage, over HTTP."""

import asyncio
from typing import Any

import httpx
import pytest
from parley.session.v1 import session_pb2 as pb

from parley_kit.ids import uuid7
from support.fake_session import ANSWER, Script
from support.sse import events, joined_text

from .conftest import Stack, StartStack

pytestmark = pytest.mark.integration
KEY = {"Idempotency-Key": "a-key"}
TEXT = "".join(ANSWER)


async def _post(stack: Stack, path: str = "/chat", **body: Any) -> httpx.Response:
    return await stack.client.post(path, json={"message": "x"} | body, headers=KEY)


async def test_a_key_sent_again_replays_the_answer_with_the_first_calls_status(
    stack: Stack,
) -> None:
    first = await _post(stack)
    again = await _post(stack)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    path = f"{first.headers['location']}/completion"
    answers = [
        await stack.client.post(path, json={"message": "y"}, headers={"Idempotency-Key": "b"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert "location" not in answers[1].headers


async def test_a_replay_is_delivered_as_it_is_asked_for(stack: Stack) -> None:
    first = await _post(stack)
    async with stack.client.stream(
        "POST", "/chat", json={"message": "x", "stream": True}, headers=KEY
    ) as response:
        assert response.status_code == 201
        assert response.headers["idempotent-replayed"] == "true"
        assert response.headers["location"] == first.headers["location"]
        seen = [event async for event in events(response)]
    assert [event.name for event in seen] == ["run", "delta", "done"]
    assert joined_text(seen) == TEXT
    assert seen[-1].data == first.json()
    background = await _post(stack, background=True)
    assert background.status_code == 201
    assert background.json() == {
        "chatID": first.json()["chatID"],
        "runID": first.json()["runID"],
        "state": "completed",
    }


async def test_a_request_for_the_background_is_answered_with_its_run(stack: Stack) -> None:
    first = await _post(stack, background=True)
    run = first.json()["runID"]
    assert first.status_code == 202
    assert first.headers["location"] == f"/runs/{run}"
    assert first.json().keys() == {"chatID", "runID", "state"}
    assert (await stack.client.get(first.headers["location"])).json()["state"] == "completed"
    again = await _post(stack)
    assert (again.status_code, again.headers["location"]) == (202, f"/runs/{run}")
    assert again.json()["message"]["content"] == TEXT


async def test_a_background_wins_over_what_is_only_accepted(stack: Stack) -> None:
    response = await stack.client.post(
        "/chat",
        json={"message": "x", "background": True},
        headers={"Accept": "text/event-stream"},
    )
    assert response.status_code == 202
    assert response.headers["content-type"] == "application/json"


async def test_another_request_under_a_key_is_refused(stack: Stack) -> None:
    first = await _post(stack)
    path = f"{first.headers['location']}/completion"
    for other in (await _post(stack, message="y"), await _post(stack, path)):
        assert other.status_code == 422
        assert other.json()["code"] == "idempotency_key_reused"
    for form in ({"stream": True}, {"background": True}, {"userID": "anonymous"}):
        assert (await _post(stack, **form)).status_code == 201


async def test_a_refused_request_reaches_no_session(stack: Stack) -> None:
    for key in ("", "a b", "ä", "x" * 256):
        response = await stack.client.post(
            "/chat", json={"message": "x"}, headers=[(b"Idempotency-Key", key.encode())]
        )
        assert response.status_code == 422, key
        assert [item["field"] for item in response.json()["errors"]] == ["Idempotency-Key"]
    twice = [(b"Idempotency-Key", b"a"), (b"Idempotency-Key", b"b")]
    assert (await stack.client.post("/chat", json={}, headers=twice)).status_code == 422
    invalid = await _post(stack, options={"temperature": 3})
    assert invalid.status_code == 422
    assert not stack.memory.calls
    assert (await _post(stack)).status_code == 201


async def test_an_empty_chat_is_made_once_under_a_key(stack: Stack) -> None:
    made = [await stack.client.post("/chat", json={"title": "t"}, headers=KEY) for _ in range(2)]
    assert [response.status_code for response in made] == [201, 201]
    assert made[0].json() == made[1].json()
    assert made[0].headers["location"] == made[1].headers["location"]
    assert "idempotent-replayed" not in made[0].headers
    assert made[1].headers["idempotent-replayed"] == "true"


async def test_a_failed_run_is_replayed_as_failed(start_stack: StartStack) -> None:
    stack = await start_stack(script=Script(fail_code="engine_lost"))
    first, again = await _post(stack), await _post(stack)
    assert (first.status_code, again.status_code) == (502, 502)
    assert again.json()["runID"] == first.json()["runID"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"


# events -----------------------------------------------------------------------


async def _follow(stack: Stack, run: str, **given: Any) -> httpx.Response:
    return await stack.client.get(f"/runs/{run}/events", **given)


async def test_a_run_is_read_from_any_place(stack: Stack) -> None:
    made = (await stack.client.post("/chat", json={"message": "x"})).json()
    whole = TEXT.encode()
    for offset in range(len(whole) + 1):
        inside = offset < len(whole) and whole[offset] & 0xC0 == 0x80
        ways = ({"headers": {"Last-Event-ID": str(offset)}}, {"params": {"lastEventID": offset}})
        for way in ways:
            response = await _follow(stack, made["runID"], **way)
            if inside:
                assert response.status_code == 422
                assert response.json()["code"] == "bad_event_id"
                continue
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            seen = [event async for event in events(response)]
            assert (seen[0].name, seen[0].id) == ("run", str(offset))
            text = "".join(event.data["text"] for event in seen if event.name == "delta")
            assert text.encode() == whole[offset:]
            assert (seen[-1].name, seen[-1].id) == ("done", "end")
            assert seen[-1].data["message"] == made["message"]


async def test_who_has_the_end_is_told_to_stop(stack: Stack) -> None:
    run = (await stack.client.post("/chat", json={"message": "x"})).json()["runID"]
    for way in ({"headers": {"Last-Event-ID": "end"}}, {"params": {"lastEventID": "end"}}):
        response = await _follow(stack, run, **way)
        assert (response.status_code, response.content) == (204, b"")
    assert (await _follow(stack, uuid7(), params={"lastEventID": "end"})).status_code == 404


async def test_the_header_is_newer_than_the_query(stack: Stack) -> None:
    run = (await stack.client.post("/chat", json={"message": "x"})).json()["runID"]
    response = await _follow(
        stack, run, headers={"Last-Event-ID": "end"}, params={"lastEventID": "0"}
    )
    assert response.status_code == 204


async def test_what_no_event_ever_had_is_refused(stack: Stack) -> None:
    run = (await stack.client.post("/chat", json={"message": "x"})).json()["runID"]
    for event_id in ("-1", "x", "1.5", "", "00", "9" * 30, "end ", str(len(TEXT.encode()) + 1)):
        response = await _follow(stack, run, params={"lastEventID": event_id})
        assert response.status_code == 422, event_id
        assert response.json()["code"] == "bad_event_id"
    twice = [(b"Last-Event-ID", b"0"), (b"Last-Event-ID", b"1")]
    assert (await _follow(stack, run, headers=twice)).json()["code"] == "bad_event_id"


async def test_a_run_in_progress_is_followed_to_its_end(start_stack: StartStack) -> None:
    gate = asyncio.Event()
    stack = await start_stack(replicas=2, script=Script(gate=gate))
    async with stack.client.stream(
        "POST", "/chat", json={"message": "x", "stream": True}
    ) as response:
        reader = events(response)
        run = (await anext(reader)).data["runID"]
        second = asyncio.create_task(_follow(stack, run))
        gate.set()
        assert [event.name async for event in reader][-1] == "done"
        seen = [event async for event in events(await second)]
    assert joined_text(seen) == TEXT


async def test_others_runs_and_usage_are_not_seen(stack: Stack) -> None:
    made = (await stack.client.post("/chat", json={"message": "x", "userID": "ada"})).json()
    for params in ({}, {"lastEventID": "end"}, {"lastEventID": "3"}):
        response = await _follow(stack, made["runID"], params=params | {"userID": "bob"})
        assert response.status_code == 404
        assert (await _follow(stack, "not-an-id", params=params)).status_code == 404
    days = {"from": "2026-03-01", "to": "2026-03-02"}
    for user, count in (("ada", 1), ("bob", 0)):
        response = await stack.client.get("/usage", params=days | {"userID": user})
        assert len(response.json()["days"]) == count


# usage ------------------------------------------------------------------------


async def test_usage_is_reported_by_day(stack: Stack) -> None:
    await stack.client.post("/chat", json={"message": "x"})
    response = await stack.client.get("/usage?from=2026-03-01&to=2026-05-31")
    assert response.status_code == 200
    assert response.json() == {
        "days": [
            {
                "day": "2026-03-01",
                "chats": 1,
                "runs": 1,
                "promptTokens": 7,
                "completionTokens": 3,
                "cachedAnswers": 0,
            }
        ]
    }
    request, metadata = stack.memory.last("GetUsage")
    assert request == pb.GetUsageRequest(from_day="2026-03-01", to_day="2026-05-31")
    assert "parley-as-owner" not in metadata


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "from"),
        ("from=2026-03-01", "to"),
        ("from=2026-02-30&to=2026-03-01", "from"),
        ("from=20260301&to=2026-03-01", "from"),
        ("from=2026-03-02&to=2026-03-01", "to"),
        ("from=2026-03-01&to=2026-06-01", "to"),
        ("from=2026-03-01&to=2026-03-02&day=1", "day"),
    ],
)
async def test_a_range_of_days_is_bounded(stack: Stack, query: str, field: str) -> None:
    response = await stack.client.get(f"/usage?{query}")
    assert response.status_code == 422
    assert field in [item["field"] for item in response.json()["errors"]]
    assert not stack.memory.calls
