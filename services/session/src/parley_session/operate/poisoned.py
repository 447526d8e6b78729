"""Puts back the question of a run that failed because its replicas were lost.

The run itself stays as it ended: readers may have seen its end. Its question is asked
again, as its user might: accepted as a new turn of the chat, in the one write that is
acceptance (docs/runs.md). A replica's sweeper begins it, within seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from parley_session.clock import Clock
from parley_session.domain.model import Principal, Run, Turn
from parley_session.store.base import MAX_PENDING
from parley_session.store.mongo.inspecting import MongoInspector


class NotPutBack(Exception):
    """Why a run was not put back, as a sentence."""


@dataclass(frozen=True, slots=True)
class PutBack:
    """The run that takes another's place."""

    chat: str
    run: str


async def put_back(store: MongoInspector, clock: Clock, run_id: str, new_id: str) -> PutBack:
    """Ask a poisoned run's question again under a new id.

    Raises NotPutBack, and StoreUnavailable.
    """
    run = await store.find_run(run_id)
    if run is None:
        raise NotPutBack("there is no such run")
    if run.error is None or run.error.code != "poisoned":
        raise NotPutBack(f"it is {run.state}, and not poisoned")
    whose = Principal(run.tenant, run.user)
    chat = await store.get_chat(whose, run.chat)
    if chat is None or chat.deleted_at is not None:
        raise NotPutBack("its chat is deleted")
    question = await store.get_message(whose, f"{run.chat}-{run.seq}")
    if question is None:
        raise NotPutBack("its question is not there")
    if chat.next_seq != run.seq + 2:
        raise NotPutBack("its chat went on: the question would come out of order")
    turn = Turn(
        run=new_id,
        seq=chat.next_seq,
        message=question.content,
        request=run.request,
        accepted_at=clock.now(),
    )
    if not await store.accept_turn(whose, chat, turn, MAX_PENDING):
        raise NotPutBack("its chat changed just now: try again")
    return PutBack(chat.id, new_id)


def describe(run: Run) -> str:
    """Return one line about a poisoned run; nothing of what was said."""
    lasted = run.finished_at - run.created_at if run.finished_at else timedelta()
    return (
        f"{run.id}  chat {run.chat}  tenant {run.tenant}  model {run.request.model}  "
        f"{run.created_at:%Y-%m-%dT%H:%M:%SZ}  {run.faults} replicas lost in "
        f"{lasted.total_seconds():.0f} s"
    )
