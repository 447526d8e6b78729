"""The committed documents are what the code says, and the lists agree."""

import json
from pathlib import Path
from typing import Any

import pytest

from parley_gateway import openapi, problems_doc
from parley_gateway.documents import main_for
from parley_gateway.problems import TABLE

ROOT = Path(__file__).parents[3]

# api.md: these and no fewer.
CODES = {
    "malformed_json": 400,
    "unauthenticated": 401,
    "user_not_allowed": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "run_in_progress": 409,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "invalid_request": 422,
    "idempotency_key_reused": 422,
    "model_not_found": 422,
    "context_too_long": 422,
    "bad_event_id": 422,
    "rate_limited": 429,
    "queue_full": 429,
    "internal": 500,
    "overloaded": 503,
    "engine_unavailable": 503,
    "store_unavailable": 503,
}
IN_FAILED = {"engine_lost", "log_lost", "timed_out", "poisoned"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openapi.render())
    return found


def test_the_committed_openapi_document_is_current() -> None:
    assert (ROOT / "docs/api/openapi.json").read_text(encoding="utf-8") == openapi.render()


def test_the_committed_table_of_errors_is_current() -> None:
    assert (ROOT / "docs/api/errors.md").read_text(encoding="utf-8") == problems_doc.render()


def test_every_promised_code_has_its_status() -> None:
    assert {code: TABLE[code].status for code in CODES} == CODES
    assert TABLE.keys() >= IN_FAILED
    assert all(TABLE[code].retry_after for code in TABLE if TABLE[code].status in (429, 503))


def test_a_document_out_of_date_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "deep" / "x.md"
    assert main_for(file, lambda: "a", ["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert main_for(file, lambda: "a", []) == 0
    assert main_for(file, lambda: "a", ["--check"]) == 0
    assert main_for(file, lambda: "b", ["--check"]) == 1
    assert main_for(file, lambda: "a", ["--what"]) == 2


def test_every_promised_route_is_there(document: dict[str, Any]) -> None:
    found = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert found == {
        ("POST", "/chat"),
        ("POST", "/chat/{chatID}/completion"),
        ("GET", "/chats"),
        ("GET", "/chat/{chatID}"),
        ("PATCH", "/chat/{chatID}"),
        ("DELETE", "/chat/{chatID}"),
        ("GET", "/runs/{runID}"),
        ("GET", "/runs/{runID}/events"),
        ("POST", "/runs/{runID}/cancel"),
        ("POST", "/chat/{chatID}/messages/{messageID}/feedback"),
        ("GET", "/models"),
        ("GET", "/usage"),
    }


def test_the_headers_of_retries_and_of_resuming_are_documented(document: dict[str, Any]) -> None:
    def headers(method: str, path: str) -> set[str]:
        parameters = document["paths"][path][method]["parameters"]
        return {item["name"] for item in parameters if item["in"] == "header"}

    assert headers("post", "/chat") == {"Idempotency-Key"}
    assert headers("post", "/chat/{chatID}/completion") == {"Idempotency-Key"}
    assert headers("get", "/runs/{runID}/events") == {"Last-Event-ID"}


def test_every_route_takes_the_user_and_documents_its_problems(document: dict[str, Any]) -> None:
    for operations in document["paths"].values():
        for operation in operations.values():
            assert "userID" in [item["name"] for item in operation["parameters"]]
            assert {"401", "422", "503"} <= operation["responses"].keys()
            example = operation["responses"]["422"]["content"]["application/problem+json"]
            assert example["examples"]["invalid_request"]["value"]["title"]
