"""Chats, messages and runs for tests of the session service."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from parley_kit.ids import uuid7
from parley_session.domain.model import (
    CacheInfo,
    CacheMode,
    CacheStatus,
    Chat,
    ContextInfo,
    FinishReason,
    FrozenPrompt,
    HistoryStrategy,
    Invalidation,
    Message,
    Options,
    Outcome,
    Principal,
    Role,
    Run,
    RunRequest,
    RunState,
    Timings,
    Turn,
    Usage,
    WhenBusy,
)

START = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
ALICE = Principal("acme", "alice")
# Not Alice: another user, another tenant's user of that name, another tenant's owner.
STRANGERS = (Principal("acme", "bob"), Principal("other", "alice"), Principal("other", None))
# Alice, and a caller that names nobody and so acts as the owner.
OWNERS = (ALICE, Principal("acme", None))

OPTIONS = Options(
    max_tokens=512,
    temperature=0.7,
    top_p=0.9,
    top_k=-1,
    seed=7,
    stop=("END",),
    presence_penalty=0.1,
    frequency_penalty=-0.1,
    json_schema='{"type":"object"}',
    history=HistoryStrategy.TRUNCATE,
    history_turns=3,
    cache=CacheMode.USE,
    when_busy=WhenBusy.REJECT,
    timeout_seconds=60.0,
)
REQUEST = RunRequest("smollm2", OPTIONS, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
PROMPT = FrozenPrompt(0, 2, "be brief", "", 1_772_366_400, "rev1")


def after(seconds: float) -> datetime:
    """A time so many seconds after `START`."""
    return START + timedelta(seconds=seconds)


def make_chat(principal: Principal = ALICE, **changes: Any) -> Chat:
    """A chat of the caller's own, without turns."""
    assert principal.user is not None
    chat = Chat(
        id=uuid7(),
        tenant=principal.tenant,
        user=principal.user,
        title="",
        system="be brief",
        model="smollm2",
        created_at=START,
        updated_at=START,
    )
    return replace(chat, **changes)


def make_turn(seq: int = 0, **changes: Any) -> Turn:
    """A turn that takes the number `seq`."""
    turn = Turn(uuid7(), seq, f"question {seq}", REQUEST, after(seq))
    return replace(turn, **changes)


def make_message(
    chat: str, seq: int, principal: Principal = ALICE, role: Role = Role.USER, **changes: Any
) -> Message:
    """A message of a chat."""
    assert principal.user is not None
    message = Message(
        chat=chat,
        tenant=principal.tenant,
        user=principal.user,
        seq=seq,
        role=role,
        content=f"text {seq} ✓",
        created_at=after(seq),
        run=uuid7(),
    )
    return replace(message, **changes)


def make_run(principal: Principal = ALICE, **changes: Any) -> Run:
    """A queued run."""
    assert principal.user is not None
    run = Run(
        id=uuid7(),
        chat=uuid7(),
        tenant=principal.tenant,
        user=principal.user,
        seq=0,
        state=RunState.QUEUED,
        request=REQUEST,
        created_at=START,
        deadline=after(60),
    )
    return replace(run, **changes)


def make_outcome(**changes: Any) -> Outcome:
    """The outcome of a run that completed."""
    outcome = Outcome(
        state=RunState.COMPLETED,
        content="the answer",
        finish_reason=FinishReason.STOP,
        finished_at=after(5),
        usage=Usage(12, 3, 4),
        timings=Timings(0.2, 1.5),
        cache=CacheInfo(CacheStatus.MISS),
        context=ContextInfo(HistoryStrategy.TRUNCATE, 1, 0),
    )
    return replace(outcome, **changes)


def make_invalidation(seconds: float = 0, **changes: Any) -> Invalidation:
    """An invalidation of a whole chat."""
    return replace(Invalidation(uuid7(), "acme", uuid7(), None, after(seconds)), **changes)
