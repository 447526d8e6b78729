"""Holding a ledger against what the platform has: what is lost, doubled, changed, left over.

`judge` is a pure function of a `Ledger` and an `Evidence`; `support.evidence` collects
the latter from the REST interface, MongoDB and Redis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from support.ledger import Ask, Ledger, Reading

Document = Mapping[str, Any]
FINAL_STATES = frozenset({"completed", "failed", "cancelled"})


class Kind(StrEnum):
    """What is wrong."""

    LOST = "lost"  # a message, a run, a piece of text, an end that was promised
    DOUBLED = "doubled"  # made, stored or sent more than once
    REORDERED = "reordered"
    CHANGED = "changed"  # other than what was sent, or than what another reader read
    FAILED = "failed"  # the run ended, but not with an answer
    UNENDED = "unended"
    RESIDUE = "residue"  # a hold, a turn, a key, an open file or a call left behind


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a `subject`: a message's text, a run, a chat, a key."""

    kind: Kind
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.detail}"


@dataclass(frozen=True, slots=True)
class LogStream:
    """A stream of the run log as Redis has it. `ttl_seconds` None: it never expires.

    Streams outlive their runs until they expire, so one that stands is no residue: one is
    that stands for ever, for too long, or for a run that there is not.
    """

    key: str
    run: str
    attempt: int
    ttl_seconds: float | None


@dataclass(slots=True)
class Evidence:
    """What the platform says it has, by two ways."""

    # By the REST interface: messages of each chat, oldest first; runs.
    chats: dict[str, Sequence[Document]] = field(default_factory=dict)
    runs: dict[str, Document] = field(default_factory=dict)
    # By MongoDB.
    stored_chats: dict[str, Document] = field(default_factory=dict)
    stored_messages: dict[str, Sequence[Document]] = field(default_factory=dict)
    stored_runs: dict[str, Document] = field(default_factory=dict)
    # By Redis: the logs, and other keys that never expire.
    streams: Sequence[LogStream] = ()
    lasting_keys: Sequence[str] = ()


@dataclass(slots=True)
class Verdict:
    """All findings."""

    findings: list[Finding] = field(default_factory=list)

    def of(self, *kinds: Kind) -> list[Finding]:
        """The findings of these kinds."""
        return [finding for finding in self.findings if finding.kind in kinds]

    def count(self, *kinds: Kind) -> int:
        """How many findings there are of these kinds."""
        return len(self.of(*kinds))

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "nothing wrong"


def judge(ledger: Ledger, evidence: Evidence, *, log_ttl_seconds: float) -> Verdict:
    """Compare what clients know with what the platform has, once everything has come to rest."""
    case = _Case(ledger, evidence, log_ttl_seconds)
    return Verdict([*case.asks(), *case.chats(), *case.readings(), *case.left_behind()])


@dataclass(slots=True)
class _Case:
    ledger: Ledger
    evidence: Evidence
    log_ttl_seconds: float

    # messages and runs -----------------------------------------------------------

    def asks(self) -> Iterator[Finding]:
        questions: dict[str, list[Document]] = {}
        for messages in self.evidence.stored_messages.values():
            for message in messages:
                if message["role"] == "user":
                    questions.setdefault(message["content"], []).append(message)
        for ask in self.ledger.asks:
            stored = questions.get(ask.text, [])
            if len(stored) > 1:
                yield Finding(Kind.DOUBLED, ask.text, f"stored {len(stored)} times")
            if ask.acknowledged_at is not None:
                yield from self._acknowledged(ask, stored)
            for message in stored:
                yield from self._runs_of(ask, message)

    def _acknowledged(self, ask: Ask, stored: Sequence[Document]) -> Iterator[Finding]:
        if not any(message["chat"] == ask.chat for message in stored):
            yield Finding(Kind.LOST, ask.text, f"acknowledged and not stored in {ask.chat}")
        shown = Counter(
            message["content"]
            for message in self.evidence.chats.get(ask.chat, ())
            if message["role"] == "user"
        )
        if not shown[ask.text]:
            yield Finding(Kind.LOST, ask.text, f"acknowledged and not shown in {ask.chat}")
        if shown[ask.text] > 1:
            yield Finding(Kind.DOUBLED, ask.text, f"shown {shown[ask.text]} times")
        run = self.evidence.stored_runs.get(ask.run)
        if run is None:
            yield Finding(Kind.LOST, ask.run, "acknowledged, and there is no such run")
        else:
            yield from self._answer(ask, run)

    def _answer(self, ask: Ask, run: Document) -> Iterator[Finding]:
        if run["state"] not in FINAL_STATES:
            yield Finding(Kind.UNENDED, ask.run, f"is still {run['state']}")
            return
        if run["state"] == "failed":
            code = (run.get("error") or {}).get("code", "")
            yield Finding(Kind.FAILED, ask.run, f"failed, {code}")
        content = run.get("content") or ""
        stored = [m for m in self.evidence.stored_messages.get(ask.chat, ()) if _answers(m, run)]
        shown = [m for m in self.evidence.chats.get(ask.chat, ()) if _answers(m, run)]
        for where, answers in (("stored", stored), ("shown", shown)):
            if not answers:
                yield Finding(Kind.LOST, ask.run, f"its answer is not {where}")
            if len(answers) > 1:
                yield Finding(Kind.DOUBLED, ask.run, f"{len(answers)} answers are {where}")
            if any(answer["content"] != content for answer in answers):
                yield Finding(Kind.CHANGED, ask.run, f"the answer {where} is not the run's text")
        told = self.evidence.runs.get(ask.run)
        if told is None:
            yield Finding(Kind.LOST, ask.run, "GET /runs does not find it")
        elif (told["state"], (told.get("message") or {}).get("content", "")) != (
            run["state"],
            content,
        ):
            yield Finding(Kind.CHANGED, ask.run, "GET /runs tells it otherwise")

    def _runs_of(self, ask: Ask, message: Document) -> Iterator[Finding]:
        """One message has one run, also where nobody was told that it was taken."""
        runs = [
            run
            for run in self.evidence.stored_runs.values()
            if (run["chat"], run["seq"]) == (message["chat"], message["seq"])
        ]
        if len(runs) > 1:
            yield Finding(Kind.DOUBLED, ask.text, f"{len(runs)} runs answer it")
        for run in runs:
            if ask.acknowledged_at is None and run["state"] not in FINAL_STATES:
                yield Finding(Kind.UNENDED, run["_id"], f"is still {run['state']}, unacknowledged")

    # chats ---------------------------------------------------------------------

    def chats(self) -> Iterator[Finding]:
        sent = {ask.text for ask in self.ledger.asks}
        for chat in sorted({ask.chat for ask in self.ledger.acknowledged_asks()}):
            if chat not in self.evidence.stored_chats:
                yield Finding(Kind.LOST, chat, "acknowledged, and there is no such chat")
                continue
            messages = sorted(
                self.evidence.stored_messages.get(chat, ()), key=lambda message: message["seq"]
            )
            yield from self._sequence(chat, messages)
            for message in messages:
                if message["role"] == "user" and message["content"] not in sent:
                    yield Finding(Kind.CHANGED, chat, f"nobody sent {message['content'][:80]!r}")
            shown = [message["content"] for message in self.evidence.chats.get(chat, ())]
            if shown != [message["content"] for message in messages]:
                if sorted(shown) == sorted(message["content"] for message in messages):
                    yield Finding(Kind.REORDERED, chat, "shown in another order than stored")
                else:
                    yield Finding(Kind.CHANGED, chat, "what is shown is not what is stored")

    def _sequence(self, chat: str, messages: Sequence[Document]) -> Iterator[Finding]:
        numbers = [message["seq"] for message in messages]
        if len(set(numbers)) != len(numbers):
            yield Finding(Kind.DOUBLED, chat, f"numbers of its messages: {numbers}")
        if set(numbers) != set(range(len(set(numbers)))):
            yield Finding(Kind.LOST, chat, f"numbers of its messages: {numbers}")
        roles = [message["role"] for message in messages]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            yield Finding(Kind.REORDERED, chat, f"roles of its messages: {roles}")
        promised = [ask.text for ask in self.ledger.acknowledged_asks() if ask.chat == chat]
        places = {message["content"]: message["seq"] for message in messages}
        order = [places[text] for text in promised if text in places]
        if order != sorted(order):
            yield Finding(Kind.REORDERED, chat, f"acknowledged in the order {order}")
        count = self.evidence.stored_chats[chat].get("messageCount")
        if count != len(messages):
            yield Finding(Kind.CHANGED, chat, f"says {count} messages and has {len(messages)}")

    # readers -------------------------------------------------------------------

    def readings(self) -> Iterator[Finding]:
        for reading in self.ledger.readings.values():
            subject = f"{reading.run} as read by {reading.reader}"
            yield from _joints(reading, subject)
            run = self.evidence.stored_runs.get(reading.run)
            if run is None:
                continue  # told of as lost
            content = (run.get("content") or "").encode()
            start = reading.deltas[0].start if reading.deltas else 0
            read = reading.text.encode()
            if content[start : start + len(read)] != read:
                yield Finding(Kind.CHANGED, subject, "what was read is no prefix of the answer")
            if not reading.ending:
                yield Finding(Kind.UNENDED, subject, "was never told how it ended")
            elif (reading.ending == "failed") != (run["state"] == "failed"):
                told = f"{reading.ending} {reading.code}".rstrip()
                yield Finding(Kind.LOST, subject, f"was told {told}; the run is {run['state']}")
            if reading.ending == "done":
                if start + len(read) < len(content):
                    yield Finding(Kind.LOST, subject, f"{len(read)} of {len(content)} bytes came")
                if reading.content is not None and reading.content.encode() != content:
                    yield Finding(Kind.CHANGED, subject, "the last event has another text")

    # what is left ----------------------------------------------------------------

    def left_behind(self) -> Iterator[Finding]:
        for chat_id, chat in self.evidence.stored_chats.items():
            for turn in chat.get("pending") or ():
                yield Finding(Kind.RESIDUE, chat_id, f"the turn of {turn['run']} is pending")
        for key in self.evidence.lasting_keys:
            yield Finding(Kind.RESIDUE, key, "never expires")
        for stream in self.evidence.streams:
            run = self.evidence.stored_runs.get(stream.run)
            if stream.ttl_seconds is None or stream.ttl_seconds > self.log_ttl_seconds:
                yield Finding(Kind.RESIDUE, stream.key, f"expires in {stream.ttl_seconds} s")
            if run is None:
                yield Finding(Kind.RESIDUE, stream.key, "is the log of no run")


def _answers(message: Document, run: Document) -> bool:
    """Whether a message, as stored or as shown, is the run's answer."""
    return message["role"] == "assistant" and run["_id"] in (
        message.get("run"),
        message.get("runID"),
    )


def _joints(reading: Reading, subject: str) -> Iterator[Finding]:
    position = reading.deltas[0].start if reading.deltas else 0
    if position > 0:
        yield Finding(Kind.LOST, subject, f"its first byte is {position}")
    for delta in reading.deltas:
        if delta.start < position:
            yield Finding(Kind.DOUBLED, subject, f"bytes {delta.start} to {position} came again")
        elif delta.start > position:
            yield Finding(Kind.LOST, subject, f"bytes {position} to {delta.start} never came")
        position = delta.end
