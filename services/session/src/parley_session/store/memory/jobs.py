"""Periodic jobs of a `MemoryStore`, and how much they have to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time

from parley_session.clock import utc_now
from parley_session.domain.jobs import JobEnd, JobRecord
from parley_session.store.base import Backlog
from parley_session.store.documents import records as documents
from parley_session.store.documents.fields import Document, stored_time
from parley_session.store.memory.chats import MemoryChats
from parley_session.store.memory.records import MemoryRecords
from parley_session.store.memory.usage import MemoryUsage


class MemoryJobs(MemoryChats, MemoryRecords, MemoryUsage):
    """The part of the store that is about what is done from time to time."""

    def __init__(self, now: Callable[[], datetime] = utc_now) -> None:
        super().__init__(now)
        self._jobs: dict[str, Document] = {}

    async def count_backlog(self, backlog: Backlog, before: datetime, most: int) -> int:
        """See `Store.count_backlog`."""
        self._reach()
        past = stored_time(before)
        return min(most, sum(at < past for at in self._times(backlog) if at is not None))

    async def get_job(self, name: str) -> JobRecord | None:
        """See `Store.get_job`."""
        self._reach()
        document = self._jobs.get(name)
        return None if document is None else documents.job_from(document)

    async def claim_job(self, name: str, attempt: int, holder: str) -> bool:
        """See `Store.claim_job`."""
        self._reach()
        kept = self._jobs.get(name, {"_id": name, "attempt": 0})
        if kept["attempt"] != attempt:
            return False
        self._jobs[name] = kept | {"attempt": attempt + 1, "running": True, "holder": holder}
        return True

    async def end_job(self, name: str, attempt: int, end: JobEnd) -> bool:
        """See `Store.end_job`."""
        self._reach()
        kept = self._jobs.get(name)
        if kept is None or kept["attempt"] != attempt:
            return False
        self._jobs[name] = kept | documents.job_end_to(end)
        return True

    def _times(self, backlog: Backlog) -> Iterable[datetime | None]:
        chats = self._chats.values()
        match backlog:
            case Backlog.EXPIRED_CHATS:
                return (chat.expires_at for chat in chats if chat.deleted_at is None)
            case Backlog.TOMBSTONES:
                return (chat.deleted_at for chat in chats)
            case Backlog.INVALIDATIONS:
                return (one.created_at for one in self._invalidations.values())
            case Backlog.KEYS:
                return (record.expires_at for record in self._keys.values())
            case Backlog.UNREPORTED:
                days = (record.get("unreported") for record in self._usage.values())
                return (_end_of(day) for day in days if day is not None)


def _end_of(day: str) -> datetime:
    """The last moment of a day."""
    return stored_time(datetime.combine(date.fromisoformat(day), time.max, UTC))
