"""The gateway's parts, without a server."""

import asyncio
import os
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley.session.v1 import session_pb2 as pb
from pydantic import ValidationError

from parley_gateway import keys
from parley_gateway.access.keyring import (
    BadKeyFile,
    KeyRing,
    dump_key_file,
    load_key_file,
    new_key,
    parse_key_file,
)
from parley_gateway.config import GatewaySettings
from parley_gateway.limits import OpenAnswers
from parley_gateway.problems import Problem, clean, from_run_failure, from_service_error
from parley_gateway.requests import NewChatRequest
from parley_gateway.routes.completions import wants_events
from parley_gateway.routes.events import offset_of
from parley_gateway.routes.retries import digest_of, told_of
from parley_gateway.web.body import parse_json
from parley_gateway.web.connection import CallerLeft, while_connected
from parley_gateway.web.sse import delta_event
from parley_kit.errors import FieldError, ServiceError


@given(st.text(), st.integers(0, 2**53))
def test_a_delta_is_one_event_whatever_its_text(text: str, offset: int) -> None:
    encoded = delta_event(text, offset)
    name, event_id, data, *rest = encoded.split(b"\n")
    assert (name, event_id, rest) == (b"event: delta", b"id: %d" % offset, [b"", b""])
    assert orjson.loads(data.removeprefix(b"data: ")) == {"text": text}
    assert b"\r" not in encoded


@given(st.binary(max_size=200))
def test_any_body_is_parsed_or_malformed(body: bytes) -> None:
    code = "malformed_json"
    try:
        parse_json(body)
    except Problem as problem:
        code = problem.code
        problem.encoded("x")
    assert code == "malformed_json"


@pytest.mark.parametrize(
    ("event_id", "offset"), [(None, 0), ("0", 0), ("7", 7), ("9" * 15, 999_999_999_999_999)]
)
def test_an_events_id_is_a_number_of_bytes(event_id: str | None, offset: int) -> None:
    assert offset_of(event_id) == offset
    assert offset_of("end") is None


@pytest.mark.parametrize(
    "event_id", ["", "-1", "+1", "01", "1.0", "1e3", " 1", "END", "x", "1" * 16, "\u0661"]
)
def test_what_no_event_ever_had_is_no_id(event_id: str) -> None:
    with pytest.raises(Problem) as refused:
        offset_of(event_id)
    assert refused.value.code == "bad_event_id"


def _digest(path: str = "/chat", **body: Any) -> bytes:
    return digest_of("POST", path, NewChatRequest.model_validate(body))


def test_a_digest_covers_what_is_asked_and_not_how_it_is_delivered() -> None:
    options = {"temperature": 1, "maxTokens": 7}
    one = _digest(message="x", options=options)
    assert len(one) == 32
    for same in (
        {"options": {"maxTokens": 7, "temperature": 1.0}, "message": "x"},
        {"message": "x", "options": options, "stream": True},
        {"message": "x", "options": options, "background": True},
        {"message": "x", "options": options, "userID": "ada"},
    ):
        assert _digest(**same) == one
    others = [
        _digest("/chat/x", message="x", options=options),
        _digest(message="y", options=options),
        _digest(message="x", options=options | {"maxTokens": 8}),
        _digest(message="x", options={"temperature": 1}),
        _digest(message="x"),
        _digest(message="x", title="t"),
    ]
    assert len({one, *others}) == len(others) + 1


def _told(accepted: dict[str, Any], asked: dict[str, Any]) -> tuple[int, dict[str, str]]:
    told = told_of(
        pb.RunAccepted(run_id="r1", chat_id="c1", **accepted), pb.CompleteRequest(**asked)
    )
    return told.status, told.headers


def test_a_replay_is_told_what_the_first_call_was_told() -> None:
    new = {"run_id": "r2", "new_chat": pb.NewChat()}
    replayed = {"Idempotent-Replayed": "true"}
    assert _told({}, new) == (201, {"Location": "/chat/c1"})
    assert _told({"replayed": True}, new) == (201, replayed | {"Location": "/chat/c1"})
    assert _told({"replayed": True}, {"run_id": "r2"}) == (200, replayed)
    assert _told({}, {"run_id": "r2", "background": True}) == (202, {"Location": "/runs/r1"})
    # However either of them is delivered.
    first = {"replayed": True, "background": True}
    assert _told(first, new) == (202, replayed | {"Location": "/runs/r1"})
    assert _told({"replayed": True}, {"run_id": "r2", "background": True}) == (200, replayed)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ([], False),
        (["*/*"], False),
        (["text/*"], False),
        (["application/json"], False),
        (["text/event-stream"], True),
        (["application/json, TEXT/Event-Stream;q=0.9"], True),
        (["application/json", "text/event-stream"], True),
        (["text/event-streams"], False),
    ],
)
def test_events_are_wanted_by_name(accept: list[str], wanted: bool) -> None:
    assert wants_events(accept) is wanted


def test_an_unknown_code_never_reaches_a_caller() -> None:
    for status, code in (
        (grpc.StatusCode.UNAVAILABLE, "overloaded"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "timed_out"),
        (grpc.StatusCode.UNKNOWN, "internal"),
        (grpc.StatusCode.UNIMPLEMENTED, "internal"),
    ):
        problem = from_service_error(ServiceError(status, "odd", "10.0.0.7 refused"))
        assert problem.code == code
        assert "10.0.0.7" not in problem.detail
    assert from_run_failure("odd", "x", run_id="r", chat_id="c").code == "internal"


def test_a_problem_is_bounded_and_can_be_encoded() -> None:
    fields = [FieldError("\ud800" * 1000, "\x00" * 9000)] * 500
    found = orjson.loads(Problem("invalid_request", "x" * 9000, fields=fields).encoded("id"))
    assert len(found["errors"]) == 20
    assert len(found["detail"]) == 500
    assert clean("ok", 5) == "ok"


def test_retry_after_is_whole_seconds_and_never_zero() -> None:
    assert Problem("overloaded", retry_after=0.0).headers["Retry-After"] == "1"
    assert Problem("overloaded", retry_after=1.2).headers["Retry-After"] == "2"
    assert Problem("overloaded").headers["Retry-After"] == "1"
    assert "Retry-After" not in Problem("not_found").headers


def test_open_answers_are_bounded_and_left_once() -> None:
    answers = OpenAnswers(1)
    leave = answers.enter("json")
    with pytest.raises(Problem, match="overloaded"):
        answers.enter("stream")
    leave()
    leave()
    assert answers.count == 0
    answers.enter("stream")()


async def test_work_ends_when_the_caller_leaves() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    with pytest.raises(CallerLeft):
        await while_connected(receive, work())
    assert ended.is_set()


async def test_what_work_raises_is_raised() -> None:
    async def work() -> None:
        raise Problem("not_found")

    async def receive() -> dict[str, str]:
        await asyncio.Event().wait()
        return {}

    with pytest.raises(Problem):
        await while_connected(receive, work())


def test_a_ring_knows_its_keys_and_no_others() -> None:
    key, record = new_key("acme", "ada")
    ring = KeyRing([record])
    found = ring.find(key)
    assert found is not None
    assert (found.tenant, found.user) == ("acme", "ada")
    other, _ = new_key("acme", None)
    for wrong in ("", "x", key + "x", key[:-1], other, key.upper(), key.replace("_", "-")):
        assert ring.find(wrong) is None
    ring.replace([])
    assert ring.find(key) is None


def test_a_key_file_keeps_no_key() -> None:
    key, record = new_key("acme", None)
    text = dump_key_file([record])
    assert key not in text
    assert key.rsplit("_", 1)[1] not in text
    assert parse_key_file(text.encode()) == [record]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": [{}]}',
        b'{"keys": [], "more": 1}',
        b'{"keys": [{"id": "x", "tenant": "a b", "sha256": "", "createdAt": ""}]}',
        b"\xff",
    ],
)
def test_a_bad_key_file_is_told_without_its_content(text: bytes) -> None:
    with pytest.raises(BadKeyFile):
        parse_key_file(text)
    _, record = new_key("t", None)
    twice = dump_key_file([record, record]).encode()
    with pytest.raises(BadKeyFile, match="twice"):
        parse_key_file(twice)


def test_keys_are_made_listed_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "keys.json")
    create = ["create", "--file", file, "--tenant"]
    assert keys.main([*create, "acme", "--user", "ada"]) == 0
    key = capsys.readouterr().out.strip()
    assert keys.main([*create, "other"]) == 0
    capsys.readouterr()
    assert Path(file).stat().st_mode & 0o777 == 0o600
    assert KeyRing(load_key_file(Path(file))).find(key) is not None
    assert keys.main(["list", "--file", file]) == 0
    listed = capsys.readouterr().out
    assert "ada" in listed
    assert key not in listed
    key_id = key.split("_")[1]
    assert keys.main(["revoke", "--file", file, "--id", key_id]) == 0
    assert KeyRing(load_key_file(Path(file))).find(key) is None
    assert keys.main(["revoke", "--file", file, "--id", key_id]) == 1
    assert "there is no key" in capsys.readouterr().err


def test_the_keys_command_tells_mistakes_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "keys.json")
    assert keys.main(["create", "--file", file, "--tenant", "a b"]) == 1
    assert "--tenant" in capsys.readouterr().err
    assert keys.main(["list", "--file", file]) == 1
    assert "No such file" in capsys.readouterr().err
    Path(file).write_text("nope")
    assert keys.main(["create", "--file", file, "--tenant", "a"]) == 1
    assert Path(file).read_text() == "nope"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"host": "0.0.0.0"}, "lets everybody read every chat"),
        ({"host": "gateway.example.org"}, "lets everybody read every chat"),
        ({"auth": "keys"}, "needs KEYS_FILE"),
        ({"session_targets": "nowhere"}, "host:port"),
        ({"cors_origins": "example.org"}, "origins"),
        ({"cors_origins": "https://example.org/path"}, "origins"),
    ],
)
def test_unsafe_or_wrong_settings_are_refused(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        GatewaySettings.model_validate(settings)


def test_public_addresses_need_keys_or_a_word(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert GatewaySettings(host=host).host == host
    assert GatewaySettings(host="0.0.0.0", allow_public_none=True)
    assert GatewaySettings(host="0.0.0.0", auth="keys", keys_file=tmp_path / "k")
    assert GatewaySettings(cors_origins=" https://a.b , *").origins == ("https://a.b", "*")


def test_tests_run_without_settings_of_their_own() -> None:
    assert not [name for name in os.environ if name.startswith("PARLEY_GATEWAY_")]
