"""Renewing the leases of answers that are being made, so that those who wait go on waiting.

A lease that comes with a miss stands for seconds; an answer may take minutes. While a run
is made here its lease is renewed, three times in the time for which it stands. It is let go
when the answer is offered, or when this replica has the run no more: then it ends by time,
and one of those who wait makes the answer.
"""

from __future__ import annotations

import asyncio

from parley_session.answers.base import AnswerCache, Query

_SHARE = 3


class Leases:
    """The leases of the runs that are made by this replica, by run."""

    def __init__(self, cache: AnswerCache) -> None:
        self._cache = cache
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def keep(self, run: str, query: Query, lease: str, seconds: float) -> None:
        """Begin to renew a lease that stands for so many seconds; 0: it needs none of it."""
        self.let_go(run)
        if seconds > 0:
            self._tasks[run] = asyncio.create_task(
                self._renew(query, lease, seconds), name="cache-lease"
            )

    def let_go(self, run: str) -> None:
        """Renew no more; of a run that has no lease, nothing."""
        task = self._tasks.pop(run, None)
        if task is not None:
            task.cancel()

    async def _renew(self, query: Query, lease: str, seconds: float) -> None:
        while seconds > 0:
            await asyncio.sleep(seconds / _SHARE)
            seconds = await self._cache.renew(query, lease, seconds)
