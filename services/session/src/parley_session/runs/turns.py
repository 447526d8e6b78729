"""Step 3 of starting: from an accepted turn, its message, then its run.

So a run implies its message. Both are repeatable by anyone who meets the turn.
"""

from __future__ import annotations

from datetime import timedelta

from parley_session.domain.model import Chat, Message, Principal, Role, Run, RunState, Turn
from parley_session.store.base import Store


def question_of(chat: Chat, turn: Turn) -> Message:
    """Make the user's message of a turn."""
    return Message(
        chat=chat.id,
        tenant=chat.tenant,
        user=chat.user,
        seq=turn.seq,
        role=Role.USER,
        content=turn.message,
        created_at=turn.accepted_at,
        run=turn.run,
    )


def run_of(chat: Chat, turn: Turn) -> Run:
    """Make the run of a turn, with its own deadline."""
    return Run(
        id=turn.run,
        chat=chat.id,
        tenant=chat.tenant,
        user=chat.user,
        seq=turn.seq,
        state=RunState.QUEUED,
        request=turn.request,
        created_at=turn.accepted_at,
        deadline=turn.accepted_at + timedelta(seconds=turn.request.options.timeout_seconds),
    )


async def store_turn(store: Store, chat: Chat, turn: Turn) -> Run | None:
    """Insert what a turn implies; the run as it stands. None: the chat was deleted meanwhile."""
    run = run_of(chat, turn)
    if await insert_turn(store, question_of(chat, turn), run):
        return run
    return await store.get_run(Principal(chat.tenant, chat.user), turn.run)


async def insert_turn(store: Store, question: Message, run: Run) -> bool:
    """Insert a turn's message, then its run. False: a run is there."""
    await store.insert_message(question)
    return await store.insert_run(run)
