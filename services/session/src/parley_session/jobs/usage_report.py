"""The daily report of usage: the ledger's sums by day, tenant, user and model.

A user's day is reported in four steps: its records that are not reported are marked with
a token; all its records are summed; the report's rows are raised to these sums; what is
still marked with the token is taken for reported. So a record that comes meanwhile, or
weeks later, is not marked, and its day is summed again; one that was marked was there to
be summed. Every step may be repeated, or cut off, by several replicas at once: whatever
the order, a row ends as the sum of all its records. Nothing of it names a chat, so that
chats may be deleted before.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from parley_kit.ids import uuid7
from parley_session import metrics
from parley_session.clock import Clock
from parley_session.domain.usage import UserDay
from parley_session.jobs.base import MOST_COUNTED, Job
from parley_session.store.base import Backlog, Store

# Records that are looked at together for whose day they are of.
BATCH = 500
REPORT_USAGE = "report_usage"


class UsageReporter:
    """Writes the report. Raises StoreUnavailable."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def job(self, period: float, deadline: float) -> Job:
        """The job of reporting the days that are over."""
        return Job(REPORT_USAGE, period, deadline, self._report_past_days, self._unreported)

    async def report(self, last: date) -> None:
        """Report all that is not reported of the days until `last`, which may be today."""
        while whose := await self._store.list_unreported(last + timedelta(days=1), BATCH):
            for each in whose:
                await self._report_user(each)

    async def _report_user(self, whose: UserDay) -> None:
        token = uuid7()
        await self._store.mark_reporting(whose, token)
        for row in await self._store.sum_models(whose):
            await self._store.raise_report(row)
        await self._store.settle_reporting(whose, token)
        metrics.JOB_ITEMS.labels(REPORT_USAGE, "user_day").inc()

    async def _report_past_days(self, _: datetime | None) -> None:
        await self.report(self._clock.now().date() - timedelta(days=1))

    async def _unreported(self) -> int:
        return await self._store.count_backlog(Backlog.UNREPORTED, self._clock.now(), MOST_COUNTED)
