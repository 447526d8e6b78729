"""Usage of a `MemoryStore`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date

from parley_session.domain.model import Principal
from parley_session.domain.usage import ReportRow, UsageDay, UsageRecord, UserDay
from parley_session.store.base import MAX_USAGE_DAYS
from parley_session.store.documents import usage as documents
from parley_session.store.documents.fields import Document
from parley_session.store.memory.part import Part


class MemoryUsage(Part):
    """What was used, and the report of it."""

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, Document] = {}
        self._report: dict[str, Document] = {}

    async def insert_usage(self, record: UsageRecord) -> bool:
        """See `Store.insert_usage`."""
        self._reach()
        if record.id in self._usage:
            return False
        self._usage[record.id] = documents.usage_to(record)
        return True

    async def sum_usage(self, principal: Principal, first: date, last: date) -> Sequence[UsageDay]:
        """See `Store.sum_usage`."""
        self._reach()
        if principal.user is None:
            raise ValueError("usage is a user's")
        begin, end = documents.checked_days(first, last, MAX_USAGE_DAYS)
        own = (
            record
            for record in self._usage.values()
            if (record["tenant"], record["user"]) == (principal.tenant, principal.user)
            and begin <= record["day"] <= end
        )
        return [documents.usage_day_from(day, sums) for day, sums in _summed(own, "day")]

    async def list_unreported(self, before: date, limit: int) -> Sequence[UserDay]:
        """See `Store.list_unreported`."""
        self._reach()
        found = [
            record
            for record in self._usage.values()
            if "unreported" in record and record["unreported"] < before.isoformat()
        ]
        found.sort(key=lambda record: str(record["unreported"]))
        return sorted({documents.user_day_from(record) for record in found[:limit]})

    async def mark_reporting(self, whose: UserDay, token: str) -> None:
        """See `Store.mark_reporting`."""
        self._reach()
        for record in self._of(whose):
            if "unreported" in record:
                record["reporting"] = token

    async def sum_models(self, whose: UserDay) -> Sequence[ReportRow]:
        """See `Store.sum_models`."""
        self._reach()
        summed = _summed(self._of(whose), "model")
        return [documents.model_row(whose, model, sums) for model, sums in summed]

    async def raise_report(self, row: ReportRow) -> None:
        """See `Store.raise_report`."""
        self._reach()
        sums = documents.sums_to(row)
        kept = self._report.setdefault(
            documents.report_id(row), documents.report_names(row) | dict.fromkeys(sums, 0)
        )
        kept |= {name: max(kept[name], value) for name, value in sums.items()}

    async def settle_reporting(self, whose: UserDay, token: str) -> None:
        """See `Store.settle_reporting`."""
        self._reach()
        for record in self._of(whose):
            if record.get("reporting") == token:
                del record["unreported"], record["reporting"]

    async def list_report(
        self, first: date, last: date, tenant: str | None, after: ReportRow | None, limit: int
    ) -> Sequence[ReportRow]:
        """See `Store.list_report`."""
        self._reach()
        begin, end = documents.report_bounds(first, last, after)
        rows = [
            documents.report_from(row)
            for row_id, row in sorted(self._report.items(), key=lambda item: item[0])
            if begin < row_id < end and tenant in (None, row["tenant"])
        ]
        return rows[:limit]

    def _of(self, whose: UserDay) -> list[Document]:
        wanted = documents.user_day_to(whose).items()
        return [record for record in self._usage.values() if wanted <= record.items()]


def _summed(records: Iterable[Document], by: str) -> list[tuple[str, dict[str, int]]]:
    """Sum records by a field, in its order."""
    none = dict.fromkeys(documents.USAGE_SUMS, 0)
    groups: dict[str, dict[str, int]] = defaultdict(none.copy)
    for record in records:
        for name in documents.USAGE_SUMS:
            groups[record[by]][name] += record[name]
    return sorted(groups.items())
