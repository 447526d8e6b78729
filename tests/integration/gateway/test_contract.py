"""The OpenAPI document against the running application, and CORS, and the trace."""

import asyncio
import base64
import hashlib
import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import TypeAdapter
from schemathesis.core.result import Ok

from parley_gateway import answers
from parley_gateway.problems import TABLE
from support.poll import until

from .conftest import Stack, StartStack

pytestmark = pytest.mark.integration

EXAMPLES = 5


async def test_generated_requests_never_meet_a_defect(stack: Stack) -> None:
    document = (await stack.client.get("/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(document)
    loop = asyncio.get_running_loop()

    def send(case: Any) -> Any:
        call = case.as_transport_kwargs(base_url=stack.url)
        call.pop("cookies", None)
        if "data" in call:
            call["content"] = call.pop("data")
        return asyncio.run_coroutine_threadsafe(stack.client.request(**call), loop).result(10)

    def check(response: Any) -> None:
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json"
            problem = response.json()
            TypeAdapter(answers.ProblemShape).validate_python(problem)
            assert TABLE[problem["code"]].status == response.status_code

    def run_all() -> int:
        tried = 0
        for result in schema.get_all_operations():
            assert isinstance(result, Ok)
            operation = result.ok()
            for mode in schemathesis.GenerationMode:

                @settings(
                    max_examples=EXAMPLES,
                    deadline=None,
                    derandomize=True,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=operation.as_strategy(generation_mode=mode))
                def one(case: Any) -> None:
                    nonlocal tried
                    tried += 1
                    check(send(case))

                one()
        return tried

    assert await asyncio.to_thread(run_all) > 50


async def test_answers_have_the_documented_shapes(stack: Stack) -> None:
    def holds(shape: type, value: Any) -> None:
        TypeAdapter(shape).validate_python(value)

    made = (await stack.client.post("/chat", json={"message": "x", "system": "s"})).json()
    holds(answers.NewChatShape, made)
    path = f"/chat/{made['chatID']}"
    holds(answers.NewChatShape, (await stack.client.post("/chat", json={"ttlSeconds": 9})).json())
    completed = await stack.client.post(f"{path}/completion", json={"message": "x"})
    holds(answers.CompletionShape, completed.json())
    # Under AUTH=none a chat made by nobody is anonymous's.
    holds(answers.ChatListShape, (await stack.client.get("/chats?limit=1")).json())
    holds(answers.ChatPageShape, (await stack.client.get(f"{path}?limit=2")).json())
    holds(answers.ChatShape, (await stack.client.patch(path, json={"title": "t"})).json())
    holds(answers.RunShape, (await stack.client.get(f"/runs/{made['runID']}")).json())
    cancelled = await stack.client.post(f"/runs/{made['runID']}/cancel")
    assert cancelled.status_code == 202
    holds(answers.RunShape, cancelled.json())
    listed = (await stack.client.get("/models")).json()
    holds(answers.ModelListShape, listed)
    assert [(model["modelID"], model.get("baseModelID")) for model in listed["models"]] == [
        ("fake", None),
        ("fake-odd", "fake"),
    ]
    usage = await stack.client.get("/usage?from=2026-03-01&to=2026-03-02")
    holds(answers.UsageReportShape, usage.json())
    background = await stack.client.post("/chat", json={"message": "x", "background": True})
    holds(answers.BackgroundShape, background.json())
    rated = await stack.client.post(
        f"{path}/messages/{made['message']['messageID']}/feedback", json={"rating": "down"}
    )
    assert (rated.status_code, rated.content) == (204, b"")
    assert stack.memory.ratings
    gone = await stack.client.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await stack.client.get(path)).status_code == 404
    holds(answers.NewChatShape, answers.NEW_CHAT_EXAMPLE)
    holds(answers.CompletionShape, answers.COMPLETION_EXAMPLE)
    holds(answers.BackgroundShape, answers.BACKGROUND_EXAMPLE)


async def test_nobody_named_acts_as_the_owner_of_what_exists(stack: Stack) -> None:
    made = await stack.client.post("/chat", json={"message": "x", "userID": "ada"})
    path = f"/chat/{made.json()['chatID']}"
    assert (await stack.client.get(path)).status_code == 200
    assert stack.memory.last("GetChat")[1]["parley-as-owner"] == "1"
    assert (await stack.client.get(f"{path}?userID=ada")).status_code == 200
    assert "parley-as-owner" not in stack.memory.last("GetChat")[1]
    _, metadata = stack.memory.last("Complete")
    assert metadata["parley-tenant"] == "default"
    assert metadata["parley-user-bin"] == b"ada"
    assert metadata["parley-request-id"] == made.headers["x-request-id"]


async def test_the_start_page_points_to_the_documentation(stack: Stack) -> None:
    assert (await stack.client.get("/")).json()["docs"] == "/docs"
    assert (await stack.client.get("/docs")).status_code == 200


async def test_the_documentation_is_whole_without_the_internet(stack: Stack) -> None:
    page = await stack.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    # Nothing but links to itself and to the document; no script, and no way to load one.
    assert set(re.findall(r'(?:href|src)="([^"#]*)', page.text)) == {"", "/openapi.json"}
    assert "<script" not in page.text
    assert "url(" not in page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    (style,) = re.findall(r"<style>(.*?)</style>", page.text)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    document = (await stack.client.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            assert f"<b>{method.upper()}</b> <code>{path}</code>" in page.text
            assert f'id="{call["operationId"]}"' in page.text
            for parameter in call.get("parameters", ()):
                assert f"<code>{parameter['name']}</code>" in page.text


PREFLIGHT = {"Access-Control-Request-Method": "POST"}


async def test_browsers_may_call_from_the_named_origins_only(start_stack: StartStack) -> None:
    stack = await start_stack(cors_origins="https://a.example, https://b.example")
    good, bad = {"Origin": "https://b.example"}, {"Origin": "https://c.example"}
    allowed = await stack.client.options("/chat", headers=good | PREFLIGHT)
    assert allowed.headers["access-control-allow-origin"] == good["Origin"]
    refused = await stack.client.options("/chat", headers=bad | PREFLIGHT)
    assert refused.status_code == 422
    assert refused.json()["requestID"]
    assert "access-control-allow-origin" not in refused.headers
    # Errors too: a page must be able to read the problem.
    problem = await stack.client.get("/nope", headers=good)
    assert problem.headers["access-control-allow-origin"] == good["Origin"]
    assert "X-Request-ID" in problem.headers["access-control-expose-headers"]
    plain = await stack.client.get("/nope", headers=bad)
    assert "access-control-allow-origin" not in plain.headers


async def test_without_origins_cors_is_off(stack: Stack) -> None:
    response = await stack.client.options(
        "/chat", headers={"Origin": "https://a.example"} | PREFLIGHT
    )
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_one_span_a_request_continues_the_callers_trace(
    start_stack: StartStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    stack = await start_stack()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    response = await stack.client.post(
        "/chat", json={"message": "x", "stream": True}, headers={"traceparent": parent}
    )
    assert response.text.count("event: delta") == 3

    def served() -> list[ReadableSpan]:
        return [s for s in spans.get_finished_spans() if s.kind is trace.SpanKind.SERVER]

    found = await until(served)
    assert [span.name for span in found] == ["POST /chat"]
    context = found[0].get_span_context()
    assert context is not None
    assert trace.format_trace_id(context.trace_id) == parent[3:35]
    assert found[0].attributes is not None
    assert found[0].attributes["http.response.status_code"] == 201
