"""What a user's runs and chats have used, by day.

Each run adds one record when it is finished, under its own id, and a chat made without
a message one under the chat's: however often that is repeated, it counts once, and what
is deleted later has been counted. Days are those of UTC at the run's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

from parley_session.domain import errors
from parley_session.domain.model import CacheStatus, Chat, Principal, Run
from parley_session.domain.usage import UsageDay, UsageRecord
from parley_session.store.base import MAX_USAGE_DAYS, Store

_HITS = (CacheStatus.EXACT, CacheStatus.SEMANTIC)


def usage_of_run(run: Run) -> UsageRecord:
    """What a committed run has used, as its answer's `usage` says."""
    ended = run.finished_at or run.created_at
    return UsageRecord(
        id=run.id,
        tenant=run.tenant,
        user=run.user,
        day=_day(ended),
        model=run.request.model,
        chats=1 if run.request.new_chat else 0,
        runs=1,
        prompt_tokens=run.usage.prompt_tokens,
        completion_tokens=run.usage.completion_tokens,
        cached_answers=1 if run.cache is not None and run.cache.status in _HITS else 0,
    )


def usage_of_empty_chat(chat: Chat) -> UsageRecord:
    """What a chat made without a message has used."""
    return UsageRecord(
        id=chat.id,
        tenant=chat.tenant,
        user=chat.user,
        day=_day(chat.created_at),
        model=chat.model,
        chats=1,
    )


class Usage:
    """Reports usage. Raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def report(self, principal: Principal, first: date, last: date) -> Sequence[UsageDay]:
        """Sum the user's usage by day, both bounds included; raises `invalid_request`."""
        if principal.user is None:
            raise errors.unauthenticated("this call must name a user")
        if last < first:
            raise errors.invalid_field("to", "is before from")
        if (last - first).days >= MAX_USAGE_DAYS:
            most = MAX_USAGE_DAYS - 1
            raise errors.invalid_field("to", f"must be at most {most} days after from")
        return await self._store.sum_usage(principal, first, last)


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()
