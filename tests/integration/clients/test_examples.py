"""The example clients against a gateway that breaks, refuses and falls silent by script."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest

from support import example_clients
from support.scripted_gateway import Asked, Reply, problem, scripted

pytestmark = pytest.mark.integration

LANGUAGES = pytest.mark.parametrize("language", ["python", "javascript"])
# Characters of one to four bytes; some are line ends to others than SSE.
PIECES = ["hé🌍", "\u2028\u0085\r\n\n。"]
TEXT = "".join(PIECES)


def event(name: str, id_: object, data: object) -> bytes:
    said = json.dumps(data, ensure_ascii=False)
    return f"event: {name}\nid: {id_}\ndata: {said}\n\n".encode()


def stream(position: int, last: bytes = event("done", "end", {"chatID": "c"})) -> bytes:
    """The bytes that a gateway sends for the rest of the answer."""
    said, end = event("run", position, {"runID": "r"}) + b": \n\n", 0
    for piece in PIECES:
        end += len(piece.encode())
        if end > position:
            said += event("delta", end, {"text": piece})
    return said + last


def position_of(asked: Asked) -> int:
    assert asked.path == ("/chat" if asked.method == "POST" else "/runs/r/events")
    return int(asked.headers["last-event-id"]) if asked.method == "GET" else 0


def in_turn(*replies: Reply) -> tuple[list[Asked], Callable[[Asked], Reply]]:
    """A script of so many replies, and where it notes what was asked."""
    seen: list[Asked] = []

    def script(asked: Asked) -> Reply:
        seen.append(asked)
        return replies[len(seen) - 1]

    return seen, script


@LANGUAGES
async def test_a_stream_cut_at_every_byte_gives_the_text_once(language: str) -> None:
    seen: list[Asked] = []
    place = ("", 0)
    cuts = itertools.count()

    def script(asked: Asked) -> Reply:
        nonlocal place, cuts
        seen.append(asked)
        if (asked.method, position_of(asked)) != place:
            place, cuts = (asked.method, position_of(asked)), itertools.count()
        whole = stream(place[1])
        cut = next(cuts)
        return Reply(200, whole[:cut], whole=cut == len(whole))

    async with scripted(script) as url:
        got = await example_clients.ask(language, url, longest_pause=0)
    assert got.error == ""
    assert got.text == TEXT
    assert got.names == ["run", "delta", "done"]
    assert len(seen) > len(stream(0))

    asked = [(each.headers["idempotency-key"], each.body) for each in seen if each.method == "POST"]
    assert len(asked) > 1
    assert len(set(asked)) == 1
    assert len(asked[0][0]) >= 32
    assert json.loads(asked[0][1]) == {"message": "?", "stream": True}


@LANGUAGES
async def test_what_is_refused_for_now_is_sent_again_under_its_key(language: str) -> None:
    seen, script = in_turn(
        Reply(0),
        problem(503, "overloaded", **{"Retry-After": "0"}),
        Reply(502, b"<html>a proxy</html>", whole=True),
        problem(409, "run_in_progress"),
        Reply(201, stream(0)[:-5]),
        problem(429, "rate_limited"),
        Reply(200, stream(len(TEXT.encode())), whole=True),
    )
    async with scripted(script) as url:
        got = await example_clients.ask(language, url, longest_pause=0, api_key="k")
    assert (got.text, got.error, got.names[-1]) == (TEXT, "", "done")
    assert [each.method for each in seen] == ["POST"] * 5 + ["GET"] * 2
    assert len({each.headers.get("idempotency-key") for each in seen[:5]}) == 1
    assert {each.headers["authorization"] for each in seen} == {"Bearer k"}


@LANGUAGES
@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (problem(422, "invalid_request"), "invalid_request"),
        (problem(401, "unauthenticated"), "unauthenticated"),
        (problem(500, "internal"), "internal"),
        (Reply(404, b"<html>not Parley</html>", whole=True), "refused"),
        (
            Reply(200, stream(0, event("failed", "end", {"code": "engine_lost"})), whole=True),
            "engine_lost",
        ),
    ],
)
async def test_what_is_final_is_told_at_once(language: str, reply: Reply, code: str) -> None:
    seen, script = in_turn(reply)
    async with scripted(script) as url:
        got = await example_clients.ask(language, url)
    assert (got.error, len(seen)) == (code, 1)


@LANGUAGES
async def test_a_silent_connection_is_given_up_for_another(language: str) -> None:
    seen, script = in_turn(
        Reply(201, stream(0)[:-5], silent=True),
        Reply(200, stream(len(TEXT.encode())), whole=True),
    )
    async with scripted(script) as url:
        got = await example_clients.ask(language, url, silence=0.3, longest_pause=0)
    assert (got.text, got.error, len(seen)) == (TEXT, "", 2)


@LANGUAGES
@pytest.mark.parametrize(
    "reply", [Reply(201, stream(0)[:-5], silent=True), problem(503, "x", **{"Retry-After": "9"})]
)
async def test_the_deadline_ends_it(language: str, reply: Reply) -> None:
    async with scripted(lambda _: reply) as url:
        got = await example_clients.ask(language, url, deadline=0.5, longest_pause=0.1)
    assert got.error == "gave_up"


@LANGUAGES
async def test_a_deleted_chat_ends_the_reading(language: str) -> None:
    _, script = in_turn(Reply(201, stream(0)[:-5]), problem(404, "not_found"))
    async with scripted(script) as url:
        got = await example_clients.ask(language, url, longest_pause=0)
    assert (got.text, got.error) == (TEXT, "not_found")


@LANGUAGES
async def test_a_chat_is_gone_on_in(language: str) -> None:
    seen, script = in_turn(Reply(200, stream(0), whole=True))
    async with scripted(script) as url:
        await example_clients.ask(language, url, chat_id="a/b", user="ada", options={"seed": 1})
    assert seen[0].path == "/chat/a%2Fb/completion"
    assert seen[0].headers["x-user-id"] == "ada"
    assert json.loads(seen[0].body)["options"] == {"seed": 1}
