"""Answers as JSON and as events."""

import asyncio

import grpc
import pytest

from parley_kit.errors import ServiceError
from support.fake_session import ANSWER, Script
from support.poll import until
from support.sse import Event, events

from .conftest import Stack, StartStack

TEXT = "".join(ANSWER)
pytestmark = pytest.mark.integration


async def _all(
    stack: Stack, path: str, body: object, headers: dict[str, str] | None = None
) -> list[Event]:
    async with stack.client.stream("POST", path, json=body, headers=headers) as response:
        return [event async for event in events(response)]


async def test_a_new_chat_is_answered_with_its_location(stack: Stack) -> None:
    response = await stack.client.post("/chat", json={"message": "hello"})
    assert response.status_code == 201, response.text
    body = response.json()
    assert response.headers["location"] == f"/chat/{body['chatID']}"
    assert body["message"]["content"] == TEXT
    assert body["message"]["finishReason"] == "stop"
    assert body["usage"] == {"promptTokens": 7, "completionTokens": 3, "cachedPromptTokens": 2}
    assert body["cache"] == {"status": "miss"}
    assert body["context"]["strategy"] == "truncate"
    assert {"title", "createdAt", "runID"} <= body.keys()
    assert "expiresAt" not in body


async def test_an_empty_chat_has_no_run(stack: Stack) -> None:
    response = await stack.client.post("/chat", json={"title": "later", "ttlSeconds": 60})
    assert response.status_code == 201
    assert response.json().keys() == {"chatID", "title", "createdAt", "expiresAt"}
    assert stack.session.calls["Complete"] == 0


async def test_the_next_message_is_answered_in_the_chat(stack: Stack) -> None:
    chat = (await stack.client.post("/chat", json={})).json()["chatID"]
    response = await stack.client.post(f"/chat/{chat}/completion", json={"message": "x"})
    assert response.status_code == 200
    assert response.json().keys() == {
        *("chatID", "runID", "message", "usage", "cache", "context"),
    }


async def test_a_stream_is_run_then_deltas_then_done(stack: Stack) -> None:
    async with stack.client.stream(
        "POST", "/chat", json={"message": "hello", "stream": True}
    ) as response:
        found = [event async for event in events(response)]
    assert response.status_code == 201
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store, no-transform"
    run, *deltas, done = found
    assert (run.name, run.id) == ("run", "0")
    assert response.headers["location"] == f"/chat/{run.data['chatID']}"
    assert "".join(event.data["text"] for event in deltas) == TEXT
    offset = 0
    for event in deltas:
        offset += len(event.data["text"].encode())
        assert (event.name, event.id) == ("delta", str(offset))
    assert (done.name, done.id) == ("done", "end")
    assert done.data["message"]["messageID"] == run.data["messageID"]
    assert done.data["message"]["content"] == TEXT
    assert done.data["runID"] == run.data["runID"]


async def test_the_accept_header_decides_where_stream_is_not_given(stack: Stack) -> None:
    accept = {"Accept": "application/json;q=0.5, text/event-stream"}
    found = await _all(stack, "/chat", {"message": "x"}, headers=accept)
    assert found[-1].name == "done"
    plain = await stack.client.post("/chat", json={"message": "x", "stream": False}, headers=accept)
    assert plain.headers["content-type"] == "application/json"
    anything = await stack.client.post("/chat", json={"message": "x"}, headers={"Accept": "*/*"})
    assert anything.headers["content-type"] == "application/json"


async def test_events_leave_as_they_come(start_stack: StartStack) -> None:
    gate = asyncio.Event()
    stack = await start_stack(script=Script(gate=gate))
    async with stack.client.stream(
        "POST", "/chat", json={"message": "x", "stream": True}
    ) as response:
        reader = events(response)
        assert (await anext(reader)).name == "run"
        assert (await anext(reader)).data == {"text": ANSWER[0]}
        assert stack.session.sent == 1  # the engine has not gone on
        gate.set()
        assert [event.name async for event in reader] == ["delta", "delta", "done"]


async def test_an_idle_stream_is_kept_alive_by_comments(start_stack: StartStack) -> None:
    gate = asyncio.Event()
    stack = await start_stack(script=Script(gate=gate), heartbeat_seconds=0.05)
    async with stack.client.stream(
        "POST", "/chat", json={"message": "x", "stream": True}
    ) as response:
        text = ""
        async for part in response.aiter_text():
            text += part
            if text.count(": \n\n") >= 2:
                gate.set()
    assert text.count("event: done\n") == 1
    assert text.rstrip("\n").rsplit("\n\n", 1)[1].startswith("event: done")


async def test_a_refusal_before_acceptance_is_a_problem_not_a_stream(
    start_stack: StartStack,
) -> None:
    stack = await start_stack(
        script=Script(
            refuse=ServiceError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "run_in_progress",
                "one at a time",
                metadata={"run_id": "r-1"},
            )
        )
    )
    for stream in (True, False):
        response = await stack.client.post("/chat", json={"message": "x", "stream": stream})
        assert response.status_code == 409
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["retry-after"] == "1"
        problem = response.json()
        assert problem["code"] == "run_in_progress"
        assert problem["runID"] == "r-1"
        assert problem["requestID"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("code", "status"), [("engine_lost", 502), ("timed_out", 504), ("no_such_code", 500)]
)
async def test_a_run_that_fails_ends_with_its_problem(
    start_stack: StartStack, code: str, status: int
) -> None:
    stack = await start_stack(script=Script(fail_code=code))
    last = (await _all(stack, "/chat", {"message": "x", "stream": True}))[-1]
    assert (last.name, last.id) == ("failed", "end")
    assert last.data["status"] == status
    plain = await stack.client.post("/chat", json={"message": "x"})
    assert plain.status_code == status
    assert plain.headers["content-type"] == "application/problem+json"
    assert plain.json()["code"] == last.data["code"]
    assert {"runID", "chatID"} <= plain.json().keys()


async def test_the_answers_deadline_is_its_timeout_and_a_margin(start_stack: StartStack) -> None:
    stack = await start_stack(script=Script(gate=asyncio.Event()), answer_margin_seconds=0.1)
    body = {"message": "x", "stream": True, "options": {"timeoutSeconds": 1}}
    last = (await _all(stack, "/chat", body))[-1]
    assert (last.name, last.data["code"]) == ("failed", "timed_out")
    request, _ = stack.memory.last("Complete")
    assert request.options.timeout_seconds == 1


async def test_options_reach_session_as_they_were_given(stack: Stack) -> None:
    options = {
        "maxTokens": 9,
        "temperature": 0,
        "topP": 0.5,
        "topK": 3,
        "seed": 2**63 - 1,
        "stop": ["a", "é"],
        "presencePenalty": -2,
        "frequencyPenalty": 2,
        "responseFormat": {"type": "object"},
        "history": "full",
        "historyTurns": 0,
        "cache": "bypass",
        "whenBusy": "reject",
        "timeoutSeconds": 30,
    }
    response = await stack.client.post("/chat", json={"message": "x", "options": options})
    assert response.status_code == 201, response.text
    request, _ = stack.memory.last("Complete")
    found = request.options
    assert (found.max_tokens, found.top_k, found.seed) == (9, 3, 2**63 - 1)
    assert (found.temperature, found.top_p) == (0.0, 0.5)
    assert found.HasField("temperature")
    assert found.HasField("history_turns")
    assert list(found.stop) == ["a", "é"]
    assert found.json_schema == '{"type":"object"}'
    plain = await stack.client.post("/chat", json={"message": "x"})
    assert plain.status_code == 201
    request, _ = stack.memory.last("Complete")
    assert not request.options.HasField("temperature")
    assert request.options.timeout_seconds == 120


async def test_a_reader_that_leaves_ends_the_call_not_the_gateway(start_stack: StartStack) -> None:
    stack = await start_stack(script=Script(gate=asyncio.Event()))
    async with stack.client.stream(
        "POST", "/chat", json={"message": "x", "stream": True}
    ) as response:
        reader = events(response)
        await anext(reader)
    await until(lambda: stack.session.cancelled == 1)
    assert (await stack.client.get("/models")).status_code == 200


async def test_a_json_caller_that_leaves_is_no_longer_waited_for(start_stack: StartStack) -> None:
    stack = await start_stack(script=Script(gate=asyncio.Event()), max_open_answers=1)
    task = asyncio.create_task(stack.client.post("/chat", json={"message": "x"}))
    await until(lambda: stack.session.sent == 1)
    refused = await stack.client.post("/chat", json={"message": "x"})
    assert refused.status_code == 503
    assert refused.json()["code"] == "overloaded"
    assert refused.headers["retry-after"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: stack.session.cancelled == 1)
    assert stack.session.script.gate is not None
    stack.session.script.gate.set()

    async def served_again() -> bool:
        return (await stack.client.post("/chat", json={"message": "x"})).status_code == 201

    await until(served_again)


async def test_a_slow_reader_holds_the_stream_back(start_stack: StartStack) -> None:
    stack = await start_stack(script=Script(pieces=("x" * 8192,), forever=True))
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.gateway.port, limit=1024)
    body = b'{"message":"x","stream":true}'
    writer.write(
        b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    # Nothing is read: what is sent must come to rest at what buffers hold.
    seen: list[int] = []

    def at_rest() -> bool:
        seen.append(stack.session.sent)
        return len(seen) > 20 and seen[-1] > 0 and len(set(seen[-20:])) == 1

    await until(at_rest, timeout=20)
    assert stack.session.sent * 8192 < 64 * 1024 * 1024
    writer.transport.abort()
    await until(lambda: stack.session.cancelled == 1)
    del reader
