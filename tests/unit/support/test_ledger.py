"""The ledger finds what is planted: it is what the fault suite rests on."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from support.ledger import Ledger
from support.verdict import Evidence, Kind, LogStream, Verdict, judge

ANSWERS = ("Grüße, 世界: one", "two parts", "three", "four 🎈")
TTL = 900.0
World = tuple[Ledger, Evidence]


def good_world(path: Path | None = None) -> World:
    """Two chats of two turns, each answer read by two readers, one of them in pieces."""
    ticks = count()
    ledger, evidence = Ledger(path, clock=lambda: float(next(ticks))), Evidence()
    for number, answer in enumerate(ANSWERS):
        chat, run, seq = f"chat-{number // 2}", f"run-{number}", 2 * (number % 2)
        question = f"question {number}"
        ask = ledger.sends("ada", question, chat if seq else "")
        ledger.tries(ask)
        ledger.acknowledged(ask, chat, run)
        for reader in ("first", "second"):
            reading = ledger.reads(run, reader)
            pieces = [answer[:4], answer[4:]] if reader == "first" else [answer]
            end = 0
            for piece in pieces:
                end += len(piece.encode())
                ledger.delta(reading, piece, end)
            ledger.ended(reading, "done", answer)
        stored = [
            {"chat": chat, "seq": seq, "role": "user", "content": question, "run": run},
            {"chat": chat, "seq": seq + 1, "role": "assistant", "content": answer, "run": run},
        ]
        shown = [
            {"role": "user", "content": question, "runID": run},
            {"role": "assistant", "content": answer, "runID": run},
        ]
        evidence.chats[chat] = [*evidence.chats.get(chat, ()), *shown]
        evidence.stored_messages[chat] = [*evidence.stored_messages.get(chat, ()), *stored]
        evidence.stored_chats[chat] = {"_id": chat, "pending": [], "messageCount": seq + 2}
        evidence.stored_runs[run] = {
            "_id": run,
            "chat": chat,
            "seq": seq,
            "state": "completed",
            "content": answer,
            "log": f"{run}:1",
        }
        evidence.runs[run] = {"state": "completed", "message": {"content": answer}}
        stream = LogStream(f"log:{run}:1", run, 1, 600.0)
        evidence.streams = [*evidence.streams, stream]
    return ledger, evidence


def verdict_of(world: World) -> Verdict:
    return judge(*world, log_ttl_seconds=TTL)


def messages_of(world: World, chat: str = "chat-0") -> list[Any]:
    messages = world[1].stored_messages[chat]
    assert isinstance(messages, list)
    return messages


def change_read_text(world: World) -> None:
    reading = world[0].readings["run-1", "second"]
    first = reading.deltas[0]
    reading.deltas[0] = type(first)(first.start, first.end, "two parks", first.at)


def move_delta(bytes_: int) -> Callable[[World], None]:
    def move(world: World) -> None:
        reading = world[0].readings["run-0", "first"]
        last = reading.deltas[-1]
        reading.deltas[-1] = type(last)(last.start + bytes_, last.end + bytes_, last.text, last.at)

    return move


def store_twice(world: World) -> None:
    messages_of(world).append({**messages_of(world)[0], "seq": 4})


def run_twice(world: World) -> None:
    runs = world[1].stored_runs
    runs["run-again"] = {**runs["run-0"], "_id": "run-again"}


def swap_turns(world: World) -> None:
    messages = messages_of(world)
    for message in messages:
        message["seq"] = (message["seq"] + 2) % 4


def swap_shown(world: World) -> None:
    shown = world[1].chats["chat-0"]
    assert isinstance(shown, list)
    shown[0], shown[2] = shown[2], shown[0]


def tell_otherwise(world: World) -> None:
    reading = world[0].readings["run-2", "first"]
    reading.ending, reading.code = "failed", "store_unavailable"


def never_end(world: World) -> None:
    world[0].readings["run-2", "first"].ending = ""


def cut_reading(world: World) -> None:
    world[0].readings["run-0", "first"].deltas.pop()


PLANTED: dict[str, tuple[Callable[[World], object], Kind]] = {
    "a question is gone": (lambda w: messages_of(w).pop(0), Kind.LOST),
    "an answer is gone": (lambda w: messages_of(w).pop(1), Kind.LOST),
    "a chat is gone": (lambda w: w[1].stored_chats.pop("chat-1"), Kind.LOST),
    "a run is gone": (lambda w: w[1].stored_runs.pop("run-3"), Kind.LOST),
    "a run is not found": (lambda w: w[1].runs.pop("run-3"), Kind.LOST),
    "a question is not shown": (lambda w: w[1].chats.pop("chat-0"), Kind.LOST),
    "a gap in what was read": (move_delta(3), Kind.LOST),
    "the end of the text never came": (cut_reading, Kind.LOST),
    "a reader was told of a failure that is none": (tell_otherwise, Kind.LOST),
    "a question is stored twice": (store_twice, Kind.DOUBLED),
    "an answer is stored twice": (
        lambda w: messages_of(w).append({**messages_of(w)[1], "seq": 4}),
        Kind.DOUBLED,
    ),
    "a question has two runs": (run_twice, Kind.DOUBLED),
    "text came twice": (move_delta(-3), Kind.DOUBLED),
    "turns are stored in another order": (swap_turns, Kind.REORDERED),
    "messages are shown in another order": (swap_shown, Kind.REORDERED),
    "a reader read another text": (change_read_text, Kind.CHANGED),
    "an answer's text is another": (
        lambda w: messages_of(w)[1].update(content="else"),
        Kind.CHANGED,
    ),
    "a message that nobody sent": (lambda w: messages_of(w)[0].update(content="?"), Kind.CHANGED),
    "a wrong count": (
        lambda w: w[1].stored_chats.update({"chat-0": {"messageCount": 2}}),
        Kind.CHANGED,
    ),
    "a last event with another text": (
        lambda w: setattr(w[0].readings["run-0", "first"], "content", "else"),
        Kind.CHANGED,
    ),
    "a run that failed": (
        lambda w: w[1].stored_runs["run-0"].update(state="failed"),  # type: ignore[attr-defined]
        Kind.FAILED,
    ),
    "a run goes on": (
        lambda w: w[1].stored_runs["run-0"].update(state="running"),  # type: ignore[attr-defined]
        Kind.UNENDED,
    ),
    "a reader was never told the end": (never_end, Kind.UNENDED),
    "a turn is pending": (
        lambda w: w[1].stored_chats.update({"chat-9": {"pending": [{"run": "run-9"}]}}),
        Kind.RESIDUE,
    ),
    "a key that never expires": (lambda w: setattr(w[1], "lasting_keys", ["key"]), Kind.RESIDUE),
    "a log that never expires": (
        lambda w: setattr(w[1], "streams", [LogStream("log:run-0:2", "run-0", 2, None)]),
        Kind.RESIDUE,
    ),
    "a log of no run": (
        lambda w: setattr(w[1], "streams", [LogStream("log:x:1", "x", 1, 1.0)]),
        Kind.RESIDUE,
    ),
}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert verdict_of(good_world()).findings == []


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_as_what_it_is(name: str) -> None:
    plant, kind = PLANTED[name]
    world = good_world()
    world = (world[0], copy.deepcopy(world[1]))
    plant(world)
    verdict = verdict_of(world)
    assert verdict.count(kind) >= 1, verdict


def test_a_message_that_was_never_acknowledged_may_be_there_or_not_but_once() -> None:
    ledger, evidence = good_world()
    ask = ledger.sends("bob", "anybody?", "")
    ledger.refused(ask, "ConnectError")
    assert verdict_of((ledger, evidence)).findings == []
    message = {"chat": "chat-9", "seq": 0, "role": "user", "content": "anybody?"}
    evidence.stored_messages["chat-9"] = [message]
    evidence.stored_runs["run-9"] = {"_id": "run-9", "chat": "chat-9", "seq": 0, "state": "failed"}
    assert verdict_of((ledger, evidence)).findings == []
    evidence.stored_messages["chat-8"] = [{**message, "chat": "chat-8"}]
    assert verdict_of((ledger, evidence)).count(Kind.DOUBLED) == 1


def test_one_message_acknowledged_as_two_runs_is_refused_by_the_book_itself() -> None:
    ledger, _ = good_world()
    with pytest.raises(AssertionError, match="acknowledged as run-0, then as run-7"):
        ledger.acknowledged(ledger.asks[0], "chat-0", "run-7")


def test_pauses_are_the_waits_between_what_came() -> None:
    ledger, _ = good_world()
    reading = ledger.readings["run-0", "first"]
    moments = reading.moments()
    assert [end for end, _ in reading.pauses()] == moments[1:]
    assert [end for end, _ in reading.pauses(since=moments[2])] == moments[2:]
    assert sum(seconds for _, seconds in reading.pauses()) == moments[-1] - moments[0]


def test_every_entry_is_on_disk_when_it_is_made(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with good_world(path)[0]:  # read before it is closed, as after a crash
        entries = [json.loads(line)["entry"] for line in path.read_text().splitlines()]
    assert entries.count("acknowledged") == len(ANSWERS)
    assert entries.count("ended") == 2 * len(ANSWERS)
