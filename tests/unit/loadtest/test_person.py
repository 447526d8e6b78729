"""A person's behaviour, against a service that a test makes up."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from parley_loadtest.client import Answer
from parley_loadtest.failures import FailureLog, RequestFailed, from_problem
from parley_loadtest.options import PersonOptions
from parley_loadtest.person import MAX_RETRY_AFTER, Person
from parley_loadtest.prompts import built_in_scripts
from parley_loadtest.timing import AnswerTiming

OPTIONS: dict[str, Any] = {
    "api_key": "",
    "send_user": True,
    "scripts": built_in_scripts(),
    "hit_share": 0.0,
    "stream_share": 0.5,
    "leave_share": 0.0,
    "delete_share": 0.0,
    "turns": 3.0,
    "think": 1.0,
    "max_tokens": 0,
    "model": "",
    "timeout": 1.0,
    "seed": 1,
}


class Service:
    """Answers everything at once, and remembers what it was asked."""

    def __init__(self, fail_on: str = "") -> None:
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.fail_on = fail_on

    def ask(self, path: str, body: dict[str, Any]) -> Answer:
        return self._answer("ask", path, body)

    def ask_streamed(self, path: str, body: dict[str, Any], leave: Callable[[int], bool]) -> Answer:
        return self._answer("stream", path, body, left=any(map(leave, range(1, 6))))

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        self.calls.append((method, path, body or {}))
        return {}

    def _answer(self, how: str, path: str, body: dict[str, Any], left: bool = False) -> Answer:
        self.calls.append((how, path, body))
        if self.fail_on and self.fail_on in path:
            raise RequestFailed("503 overloaded: busy", retry_after=9999)
        status = "left" if left else "miss"
        return Answer("c1", "text", "stop", status, 3, AnswerTiming(0.0), left=left)


def person(service: Service, **changes: Any) -> tuple[Person, list[float], list[Answer]]:
    slept: list[float] = []
    answers: list[Answer] = []

    def record(kind: str, name: str, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except RequestFailed as failure:
            one.pause_after(failure)
            return None

    one = Person(
        "ann",
        PersonOptions(**{**OPTIONS, **changes}),
        service,
        record=record,
        answered=answers.append,
        sleep=slept.append,
        draw=random.Random(7),
    )
    return one, slept, answers


def test_a_chat_is_opened_once_and_followed_up_with_pauses() -> None:
    service = Service()
    one, slept, answers = person(service, turns=8.0)
    for _ in range(30):
        service.calls.clear()
        slept.clear()
        one.hold_chat()
        asked = [path for how, path, _ in service.calls if how in {"ask", "stream"}]
        assert asked[0] == "/chat"
        assert set(asked[1:]) <= {"/chat/c1/completion"}
        assert len(slept) == len(asked) - 1
        assert all(0 <= pause <= 10.0 for pause in slept)
    assert len(answers) > 60


def test_both_ways_of_asking_are_used_as_told() -> None:
    for share, expected in ((0.0, {"ask"}), (1.0, {"stream"})):
        service = Service()
        one, _, _ = person(service, stream_share=share)
        for _ in range(10):
            one.hold_chat()
        assert {how for how, _, _ in service.calls if how in {"ask", "stream"}} == expected


def test_one_who_leaves_comes_back_to_read_and_asks_no_more() -> None:
    service = Service()
    one, _, answers = person(service, stream_share=1.0, leave_share=1.0, turns=20.0)
    one.hold_chat()
    assert [how for how, _, _ in service.calls] == ["stream", "GET"]
    assert answers[0].cache_status == "left"


def test_options_go_into_the_request_and_nothing_else() -> None:
    service = Service()
    one, _, _ = person(service, max_tokens=9, model="big", turns=20.0)
    one.hold_chat()
    first, second = service.calls[0][2], service.calls[1][2]
    assert set(first) == {"message", "userID", "model", "options"}
    assert first["options"] == {"maxTokens": 9}
    assert set(second) == {"message", "userID", "options"}


def test_a_refusal_ends_the_chat_and_is_waited_for_within_reason() -> None:
    service = Service(fail_on="/chat")
    one, slept, answers = person(service)
    one.hold_chat()
    assert not answers
    assert slept == [MAX_RETRY_AFTER]


def test_a_problem_is_told_in_full_and_grouped_by_its_cause() -> None:
    def problem(request_id: str) -> bytes:
        return orjson.dumps(
            {
                "status": 422,
                "code": "invalid_request",
                "detail": "The request is not valid.",
                "requestID": request_id,
                "errors": [{"field": "options.topP", "message": "must be at most 1"}],
            }
        )

    one, two = (from_problem(422, problem(name), "2") for name in ("r-1", "r-2"))
    assert str(one) == str(two)
    assert str(one) == (
        "422 invalid_request: The request is not valid. [options.topP: must be at most 1]"
    )
    assert "r-1" in one.body
    assert one.retry_after == 2.0


@pytest.mark.parametrize("body", [b"", b"<html>Bad Gateway</html>", b"\xff\xfe", b"[1]"])
def test_what_is_no_problem_document_is_told_as_it_is(body: bytes) -> None:
    failure = from_problem(502, body)
    assert str(failure).startswith("502: ")


def test_failures_are_written_whole_and_their_number_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_loadtest.failures.MAX_WRITTEN", 3)
    log = FailureLog(tmp_path / "reports" / "failures.jsonl")
    for number in range(9):
        log.write("POST /chat", RequestFailed("500 internal: x", f"body {number}"), {"kind": "SSE"})
    lines = (tmp_path / "reports" / "failures.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["body"] for line in lines] == ["body 0", "body 1", "body 2"]
