"""What people write is in no log and no metric, whatever becomes of their requests."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from e2e import flows
from parley_devstack.stack import Stack
from support.poll import until
from support.sse import joined_text
from support.stack import running, sim_config

pytestmark = pytest.mark.timeout(240)

# In every text that a caller can send.
CANARY = "Zanzibarquux"
# In every name that a caller can go by; not for metrics.
USER = "uSernameQuokka"
SERVICES = ("gateway", "session", "cache", "inference")
# Fits a slice of an answer that nothing else says by chance.
SLICE = 24

SCHEMA = {"type": "object", "properties": {CANARY: {"type": "string", "title": CANARY}}}
OPTIONS: dict[str, Any] = {"stop": [CANARY], "temperature": 0}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that logs all it has to say."""
    levels = {kind: {f"PARLEY_{kind.upper()}_LOG_LEVEL": "debug"} for kind in SERVICES}
    yield from running(Stack(sim_config(tmp_path_factory.mktemp("silent"), env=levels)))


def lines(stack: Stack, name: str) -> list[dict[str, Any]]:
    """A service's log; asserts that each line of it is JSON."""
    said = stack.plan(name).log.read_text("utf-8").splitlines()
    # The devstack heads each start with a line of its own.
    return [json.loads(line) for line in said if line and not line.startswith("--- ")]


async def test_a_log_line_is_json_and_names_the_trace_that_all_services_share(
    stack: Stack,
) -> None:
    trace_id = uuid.uuid4().hex
    async with flows.client(stack.url) as http:
        http.headers["traceparent"] = f"00-{trace_id}-b7ad6b7169203331-01"
        await flows.stream(http, "/chat", "[[sim:fail after=4]] Trace this.")

    def logged() -> set[str]:
        return {
            line["service"]
            for kind in SERVICES
            for line in lines(stack, f"{kind}-1")
            if line.get("trace_id") == trace_id and line["span_id"]
        }

    # Session tells that an engine lost the answer, the gateway the request itself.
    await until(
        lambda: {"parley-gateway", "parley-session"} <= logged(), what="the trace in two logs"
    )
    for kind in SERVICES:
        for line in lines(stack, f"{kind}-1"):
            assert {"ts", "level", "service", "logger", "message"} <= line.keys(), line


async def metrics(stack: Stack, *names: str) -> dict[str, str]:
    """What these services' /metrics show (none named: all services'), by name."""
    found = {}
    async with httpx.AsyncClient(timeout=10) as http:
        for name in names or stack.names:
            if admin := stack.plan(name).admin:
                found[name] = (await http.get(f"http://{admin}/metrics")).text
    return found


async def answered(http: httpx.AsyncClient) -> list[str]:
    """Use every route as it is meant; the texts that were answered."""
    first = await flows.ask(
        http, "/chat", f"Say {CANARY}.", system=f"You are {CANARY}.", title=CANARY, options=OPTIONS
    )
    chat = f"/chat/{first['chatID']}"
    rated = f"{chat}/messages/{first['message']['messageID']}/feedback"
    again = await flows.stream(
        http, "/chat", f"Say {CANARY}.", system=f"You are {CANARY}.", options=OPTIONS
    )
    assert again[-1].data["cache"]["status"] == "exact"
    second = await flows.stream(http, f"{chat}/completion", f"And {CANARY}?", options=OPTIONS)
    for method, path, body in (
        ("GET", "/chats", None),
        ("GET", chat, None),
        ("PATCH", chat, {"title": f"{CANARY} {CANARY}"}),
        ("GET", f"/runs/{first['runID']}", None),
        ("POST", f"/runs/{first['runID']}/cancel", None),
        ("POST", rated, {"rating": "down"}),
        ("GET", "/models", None),
        ("DELETE", chat, None),
    ):
        answer = await http.request(method, path, json=body)
        assert answer.status_code < 300, (path, answer.text)
    return [first["message"]["content"], joined_text(second)]


async def refused(http: httpx.AsyncClient) -> None:
    """Ask for what cannot be, each way with the canary in it."""
    nested: dict[str, Any] = {"$gt": CANARY}
    bodies: list[Any] = [
        {"message": nested},
        {"message": CANARY, CANARY: CANARY},
        {"message": CANARY + "\x00"},
        {"message": CANARY + "\ud800"},
        {"message": CANARY * 30_000},
        {"message": CANARY * 3_000},
        {"message": CANARY, "model": CANARY},
        {"message": CANARY, "title": CANARY * 20},
        {"message": CANARY, "options": {"maxTokens": CANARY, CANARY: 1}},
        {"message": CANARY, "options": {"history": CANARY}},
        {"message": CANARY, "options": {"responseFormat": CANARY}},
        # `sim` follows no schema.
        {"message": CANARY, "options": {"responseFormat": SCHEMA}},
        [CANARY],
        CANARY,
    ]
    json_type = {"Content-Type": "application/json"}
    for body in bodies:
        answer = await http.post("/chat", content=json.dumps(body), headers=json_type)
        assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    chat = "/chat/01928c5e-7f3c-7000-8000-000000000000"
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/chat", {"content": f'{{"message": "{CANARY}', "headers": json_type}),
        ("POST", "/chat", {"content": CANARY, "headers": {"Content-Type": f"text/{CANARY}"}}),
        ("POST", f"/chat?userID={CANARY}%00", {"json": {"message": CANARY}}),
        ("POST", f"/chat?{CANARY}={CANARY}", {"json": {"message": CANARY}}),
        ("POST", f"{chat}/completion", {"json": {"message": CANARY}}),
        ("PATCH", chat, {"json": {"title": CANARY}}),
        ("GET", f"/chat/{CANARY}", {}),
        ("GET", f"/runs/{CANARY}", {}),
        ("GET", f"/chats?limit={CANARY}", {}),
        ("GET", f"/chats?cursor={CANARY}", {}),
        ("GET", f"{chat}?before={CANARY}", {}),
        ("GET", f"/{CANARY}", {}),
        ("PUT", f"/chat/{CANARY}", {"json": {"title": CANARY}}),
    ]
    for method, path, given in asked:
        answer = await http.request(method, path, **given)
        assert 400 <= answer.status_code < 500, (path, answer.status_code, answer.text)


async def failed(http: httpx.AsyncClient, stack: Stack) -> list[str]:
    """Have parts fail while they hold the canary; the texts that were answered."""
    # The engine loses the request, and the only engine's process dies; then it is back.
    events = await flows.stream(http, "/chat", f"[[sim:fail after=4]] {CANARY}")
    texts = [joined_text(events)]
    died = await flows.stream(
        http, "/chat", f"[[sim:die after=4]] {CANARY}", options={"timeoutSeconds": 2}
    )
    assert died[-1].name == "failed", died[-1]
    texts.append(joined_text(died))
    await until(stack.died, what="the engine's death noticed")
    await stack.start_one("inference-1")
    await until(lambda: flows.models(http), timeout=15, what="the model listed again")
    # An answer out of time.
    late = f"[[sim:slow itl=0.2]] [[sim:length tokens=100]] {CANARY}"
    events = await flows.stream(http, "/chat", late, options={"timeoutSeconds": 1})
    assert events[-1].data["code"] == "timed_out", events[-1]
    texts.append(joined_text(events))
    # Without its cache, without its log, without its store.
    await stack.kill("cache-1")
    texts.append((await flows.ask(http, "/chat", f"{CANARY}, uncached"))["message"]["content"])
    await stack.pause("valkey")
    texts.append((await flows.ask(http, "/chat", f"{CANARY}, unlogged"))["message"]["content"])
    await stack.resume("valkey")
    await stack.kill("mongodb")
    answer = await http.post("/chat", json={"message": f"{CANARY}, unstored"})
    assert answer.json()["code"] == "store_unavailable"
    await stack.kill("session-1")
    answer = await http.post("/chat", json={"message": f"{CANARY}, unanswered"})
    assert answer.status_code == 503, answer.text
    return texts


async def test_no_text_of_anybody_is_in_a_log_or_a_metric(stack: Stack) -> None:
    async with flows.client(stack.url, user=USER) as http:
        texts = await answered(http)
        await refused(http)
        shown = await metrics(stack)
        texts += await failed(http, stack)
        shown["gateway-1 at last"] = (await metrics(stack, "gateway-1"))["gateway-1"]
    slices = [text[-SLICE:] for text in texts if len(text) >= 2 * SLICE]
    assert len(slices) > len(texts) / 2, texts
    secrets = [CANARY, *slices]

    for name, text in shown.items():
        assert [s for s in (*secrets, USER) if s in text] == [], f"{name}'s metrics"
    for name in stack.names:
        said = stack.plan(name).log.read_text("utf-8", errors="replace")
        assert [s for s in secrets if s in said] == [], f"{name}'s log"
        # Escaped, as in JSON within JSON.
        assert [s for s in secrets if json.dumps(s)[1:-1] in said] == [], f"{name}'s log"
