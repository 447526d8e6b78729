"""Every field of every route, tried with what does not belong there.

Each try ends in a 4xx problem, and nothing is stored.
"""

import itertools
import json
from typing import Any

import httpx
import pytest

from parley_gateway.problems import MAX_ERRORS, TABLE
from parley_kit.ids import uuid7

from .conftest import Stack

pytestmark = pytest.mark.integration

WRONG_TYPES: list[Any] = [None, True, 7, 1.5, [], {}, ["x"], {"$gt": ""}, {"a": {"b": []}}]
HUGE = "x" * 300_000
BAD_TEXTS = ["", "nul\x00here", "\ud800", "x\udfff"]
STRINGS = {
    "message": [*BAD_TEXTS, " \n\t", "\u2003", HUGE, "é" * 140_000],
    "system": ["nul\x00here", "\ud800", "é" * 20_000, HUGE],
    "title": [*BAD_TEXTS, "  ", "x" * 201],
    "model": [*BAD_TEXTS, " ", "x" * 201],
    "userID": [*BAD_TEXTS, "x" * 129, "a\nb", "a\x7f", "a\x85"],
}
NUMBERS: dict[str, list[Any]] = {
    "maxTokens": [0, -1, 10**9, 10**300, 1.0, 1.5, "1"],
    "temperature": [-0.1, 2.1, 10**300, "1"],
    "topP": [0, -1, 1.1, "1"],
    "topK": [-1, 1001, 1.5, "1"],
    "seed": [-1, 2**63, 1.5, "1"],
    "presencePenalty": [-2.1, 2.1, "1"],
    "frequencyPenalty": [-2.1, 2.1, "1"],
    "historyTurns": [-1, 1001, 1.5, "1"],
    "timeoutSeconds": [0, 0.5, -1, 601, "1"],
}
OPTIONS: dict[str, list[Any]] = {
    "stop": ["x", [1], [None], [""], ["x" * 65], ["a", "b", "c", "d", "e"], ["\x00"], ["\ud800"]],
    "responseFormat": [
        *("json", "", "\ud800"),
        {"a": "\x00"},
        {"\ud800": 1},
        {"a": "x" * 20_000},
        {"n": 10**300},
    ],
    "history": ["", "all", "FULL"],
    "cache": ["", "yes"],
    "whenBusy": ["wait", ""],
}
NOT_BOOLEAN: list[Any] = [None, 0, 1, "true", [], {}, {"$gt": ""}]
NOT_OBJECT: list[Any] = [None, True, 7, "x", [], [{}]]
NUMBER_TYPES: list[Any] = [None, True, "7", [], {}, {"$gt": ""}]


def _not_this(values: list[Any], kind: type) -> list[Any]:
    return [value for value in values if type(value) is not kind]


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"a": schema}
    return schema


def _bodies() -> list[tuple[str, str, Any]]:
    """(kind of route, field, body) of every try."""
    tries: list[tuple[str, str, Any]] = []
    for field, values in STRINGS.items():
        for value in values + _not_this(WRONG_TYPES, str):
            tries.append(("chat", field, {"message": "x"} | {field: value}))
            if field in ("message", "userID"):
                tries.append(("completion", field, {"message": "x"} | {field: value}))
            if field == "title":
                tries.append(("patch", field, {field: value}))
    for value in [0, -1, 10**12, 1.5, "60", *_not_this(NUMBER_TYPES, int)]:
        tries += [("chat", "ttlSeconds", {"ttlSeconds": value})]
    options = {
        **{name: values + NUMBER_TYPES for name, values in NUMBERS.items()},
        **{
            name: values + [v for v in WRONG_TYPES if type(v) not in (list, dict)]
            for name, values in OPTIONS.items()
        },
    }
    options["stop"] += [{}, {"$gt": ""}]
    options["responseFormat"] += [[], ["x"], _nested(40)]
    for route in ("chat", "completion"):
        for name, values in options.items():
            tries += [
                (route, f"options.{name}", {"message": "x", "options": {name: value}})
                for value in values
            ]
        tries += [
            (route, "options", {"message": "x", "options": value})
            for value in _not_this(WRONG_TYPES, dict)
        ]
        tries.append((route, "options.extra", {"message": "x", "options": {"extra": 1}}))
        for name in ("stream", "background"):
            tries += [(route, name, {"message": "x", name: value}) for value in NOT_BOOLEAN]
        tries.append((route, "body", {"message": "x", "background": True, "stream": True}))
        tries.append((route, "extra", {"message": "x", "extra": 1}))
        tries += [(route, "body", value) for value in NOT_OBJECT]
    tries.append(("chat", "body", {"stream": True}))
    tries.append(("chat", "body", {"background": True}))
    tries.append(("chat", "body", {"options": {}}))
    tries.append(("completion", "message", {}))
    tries.append(("patch", "title", {}))
    tries.append(("patch", "system", {"title": "x", "system": "y"}))
    for value in ["", "UP", "sideways", "\x00", *_not_this(WRONG_TYPES, str)]:
        tries.append(("feedback", "rating", {"rating": value}))
    tries.append(("feedback", "rating", {}))
    tries.append(("feedback", "why", {"rating": "up", "why": "x"}))
    return tries


def _check(response: httpx.Response, status: int | None = None) -> dict[str, Any]:
    assert 400 <= response.status_code < 500, (response.status_code, response.text)
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == response.status_code
    assert TABLE[problem["code"]].status == response.status_code
    assert problem["requestID"] == response.headers["x-request-id"]
    assert len(response.content) < 4096
    assert len(problem.get("errors", ())) <= MAX_ERRORS
    if status is not None:
        assert response.status_code == status, problem
    return problem


async def _chat(stack: Stack) -> str:
    body = {"message": "x", "userID": "ada"}
    found = await stack.client.post("/chat", json=body)
    return str(found.json()["chatID"])


def _json(body: Any) -> bytes:
    # ASCII: lone surrogates travel as escapes, as a hostile client sends them.
    return json.dumps(body).encode()


async def test_every_bad_field_is_named_and_nothing_is_stored(stack: Stack) -> None:
    chat = await _chat(stack)
    routes = {
        "chat": ("POST", "/chat"),
        "completion": ("POST", f"/chat/{chat}/completion"),
        "patch": ("PATCH", f"/chat/{chat}"),
        "feedback": ("POST", f"/chat/{chat}/messages/{chat}-1/feedback"),
    }
    writes = stack.memory.writes
    for route, field, body in _bodies():
        method, path = routes[route]
        response = await stack.client.request(
            method, path, content=_json(body), headers={"Content-Type": "application/json"}
        )
        shown = (route, field, str(body)[:200])
        assert response.status_code == 422, (shown, response.text)
        problem = _check(response)
        assert problem["code"] == "invalid_request", shown
        fields = [item["field"] for item in problem["errors"]]
        assert any(name == field or name.startswith(f"{field}.") for name in fields), (
            shown,
            fields,
        )
        assert stack.memory.writes == writes, shown


NOT_JSON = [
    b"",
    b" ",
    b"{",
    b"nope",
    b"{'message': 'x'}",
    b'{"message": "x",}',
    b'{"message": "x"} trailing',
    b'{"message": "x", "message": "y"}',
    b'{"message": "x", "options": {"seed": 1, "seed": 1}}',
    b'{"message": "x", "options": {"temperature": NaN}}',
    b'{"message": "x", "options": {"temperature": Infinity}}',
    b'{"message": "x", "options": {"temperature": -Infinity}}',
    b'{"message": "x", "options": {"seed": ' + b"9" * 5000 + b"}}",
    b'{"message": "raw \x00 nul"}',
    b'{"message": "\xff\xfe"}',
    b"\xef\xbb\xbf{}",
    b'{"message": "\xed\xa0\x80"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"{" + b",".join(b'"k%d":1' % n for n in range(5000)) + b"}",
]


async def test_what_is_not_json_is_malformed(stack: Stack) -> None:
    routes = (
        ("POST", "/chat"),
        ("POST", f"/chat/{uuid7()}/completion"),
        ("PATCH", f"/chat/{uuid7()}"),
        ("POST", f"/chat/{uuid7()}/messages/x/feedback"),
    )
    for body, (method, path) in itertools.product(NOT_JSON, routes):
        response = await stack.client.request(
            method, path, content=body, headers={"Content-Type": "application/json"}
        )
        assert _check(response, 400)["code"] == "malformed_json"
    assert stack.memory.writes == 0


async def test_infinite_numbers_are_out_of_bounds(stack: Stack) -> None:
    body = b'{"message": "x", "options": {"temperature": 1e999}}'
    response = await stack.client.post(
        "/chat", content=body, headers={"Content-Type": "application/json"}
    )
    assert _check(response, 422)["errors"][0]["field"] == "options.temperature"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/problem+json"},
        {"Content-Type": ";;;"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_another_media_type_is_refused(stack: Stack, headers: dict[str, str]) -> None:
    response = await stack.client.post("/chat", content=b'{"message":"x"}', headers=headers)
    assert _check(response, 415)["code"] == "unsupported_media_type"
    assert stack.memory.writes == 0


async def test_json_says_its_charset_as_it_likes(stack: Stack) -> None:
    response = await stack.client.post(
        "/chat", content=b"{}", headers={"Content-Type": 'Application/JSON; charset="UTF-8"'}
    )
    assert response.status_code == 201


ODD_IDS = [
    *("x", "null", "00", "%00", "%FF", "%ED%A0%80", "..%2f..", "💥", "a" * 5000),
    "01928C5E-7F3A-7C11-9D53-0A4BE1F0C2AA",
    "01928c5e-7f3a-7c11-9d53-0a4be1f0c2aa%0a",
    "٠1928c5e-7f3a-7c11-9d53-0a4be1f0c2aa",
    '{"$gt":""}',
]


async def test_ids_that_cannot_be_are_not_found(stack: Stack) -> None:
    chat = await _chat(stack)
    writes = stack.memory.writes
    for odd in [*ODD_IDS, uuid7()]:
        for method, path, body in (
            ("GET", f"/chat/{odd}", None),
            ("PATCH", f"/chat/{odd}", {"title": "x"}),
            ("DELETE", f"/chat/{odd}", None),
            ("POST", f"/chat/{odd}/completion", {"message": "x"}),
            ("GET", f"/runs/{odd}", None),
            ("POST", f"/runs/{odd}/cancel", None),
            ("POST", f"/chat/{odd}/messages/{chat}-1/feedback", {"rating": "up"}),
            ("POST", f"/chat/{chat}/messages/{odd}/feedback", {"rating": "up"}),
            ("POST", f"/chat/{chat}/messages/{chat}-{odd}/feedback", {"rating": "up"}),
        ):
            response = await stack.client.request(method, path, json=body)
            assert response.status_code == 404, (method, path, response.text)
            assert _check(response)["code"] == "not_found"
    assert stack.memory.writes == writes


async def test_somebody_elses_chat_is_not_found_and_nothing_is_written(stack: Stack) -> None:
    found = await stack.client.post("/chat", json={"message": "x", "userID": "ada"})
    chat, run = found.json()["chatID"], found.json()["runID"]
    writes = stack.memory.writes
    for method, path, body in (
        ("GET", f"/chat/{chat}", None),
        ("PATCH", f"/chat/{chat}", {"title": "x"}),
        ("DELETE", f"/chat/{chat}", None),
        ("POST", f"/chat/{chat}/completion", {"message": "x"}),
        ("GET", f"/runs/{run}", None),
        ("POST", f"/runs/{run}/cancel", None),
        ("POST", f"/chat/{chat}/messages/{chat}-1/feedback", {"rating": "up"}),
    ):
        for params, headers in (({"userID": "eve"}, {}), ({}, {"X-User-ID": "eve"})):
            response = await stack.client.request(
                method, path, json=body, params=params, headers=headers
            )
            assert _check(response, 404)["code"] == "not_found"
    assert stack.memory.writes == writes
    mine = await stack.client.get("/chats", params={"userID": "eve"})
    assert mine.json() == {"chats": []}


BAD_PARAMETERS = [
    ("/chats?limit=0", "limit"),
    ("/chats?limit=101", "limit"),
    ("/chats?limit=x", "limit"),
    ("/chats?limit=", "limit"),
    ("/chats?limit=1.5", "limit"),
    ("/chats?limit=" + "9" * 5000, "limit"),
    ("/chats?limit=1&limit=2", "limit"),
    ("/chats?limit[$gt]=1", "limit[$gt]"),
    ("/chats?offset=1", "offset"),
    ("/chats?cursor=", "cursor"),
    ("/chats?cursor=" + "x" * 513, "cursor"),
    ("/chats?cursor=%00", "cursor"),
    ("/chats?cursor=a%20b", "cursor"),
    ("/chats?userID=", "userID"),
    ("/chats?userID=" + "x" * 129, "userID"),
    ("/chats?userID=a%0Ab", "userID"),
    ("/chats?userID=%00", "userID"),
    ("/models?userID=%7F", "userID"),
    ("/models?x=1", "x"),
    ("/chat/{chat}?limit=0", "limit"),
    ("/chat/{chat}?limit=201", "limit"),
    ("/chat/{chat}?before=x", "before"),
    ("/chat/{chat}?before=", "before"),
    ("/chat/{chat}?before={chat}", "before"),
    ("/chat/{chat}?before={chat}--1", "before"),
    ("/chat/{chat}?before={chat}-99999999999", "before"),
    ("/chat/{chat}?before=" + "x" * 500, "before"),
    ("/runs/{chat}?x", "x"),
]


async def test_bad_parameters_are_named(stack: Stack) -> None:
    chat = await _chat(stack)
    for path, field in BAD_PARAMETERS:
        problem = _check(await stack.client.get(path.format(chat=chat)), 422)
        assert [item["field"] for item in problem["errors"]] == [field], path


@pytest.mark.parametrize(
    "query", ["userID=%FF", "userID=%ED%A0%80", "&".join("abcdefghijklmnopqrs")]
)
async def test_a_query_that_cannot_be_read_is_invalid(stack: Stack, query: str) -> None:
    _check(await stack.client.get(f"/chats?{query}"), 422)


async def test_users_that_disagree_are_refused(stack: Stack) -> None:
    response = await stack.client.post("/chat?userID=a", json={"message": "x", "userID": "b"})
    assert _check(response, 422)["errors"][0]["field"] == "userID"
    same = await stack.client.post("/chat?userID=a", json={"userID": "a"})
    assert same.status_code == 201


@pytest.mark.parametrize("value", [b"", b"\xff", b"x" * 129, b"a\xc2\x85b"])
async def test_a_bad_user_header_is_named(stack: Stack, value: bytes) -> None:
    response = await stack.client.get("/chats", headers=[(b"X-User-ID", value)])
    assert _check(response, 422)["errors"][0]["field"] == "X-User-ID"


async def test_a_user_header_is_utf8(stack: Stack) -> None:
    await stack.client.get("/chats", headers=[(b"X-User-ID", "Zoë".encode())])
    _, metadata = stack.memory.last("ListChats")
    assert metadata["parley-user-bin"].decode() == "Zoë"


async def test_unknown_routes_and_methods_are_problems(stack: Stack) -> None:
    for path in ("/nope", "/chat/", "/chats/", "/v1/chat/completions", "/runs"):
        assert _check(await stack.client.get(path), 404)["code"] == "not_found"
    for method, path, allow in (
        ("GET", "/chat", "POST"),
        ("PUT", f"/chat/{uuid7()}", "DELETE, GET, PATCH"),
        ("DELETE", "/chats", "GET"),
        ("OPTIONS", "/chats", "GET"),
        ("TRACE", "/chats", "GET"),
    ):
        response = await stack.client.request(method, path)
        assert _check(response, 405)["code"] == "method_not_allowed"
        assert response.headers["allow"] == allow


async def test_a_request_id_is_echoed_if_it_is_sane(stack: Stack) -> None:
    kept = await stack.client.get("/nope", headers={"X-Request-ID": "my-id_1.2"})
    assert kept.json()["requestID"] == kept.headers["x-request-id"] == "my-id_1.2"
    for odd in ("a b", "x" * 129, "é".encode().decode("latin-1"), "<script>"):
        response = await stack.client.get(
            "/nope", headers=[(b"X-Request-ID", odd.encode("latin-1"))]
        )
        assert response.headers["x-request-id"] != odd
        assert len(response.headers["x-request-id"]) == 36
