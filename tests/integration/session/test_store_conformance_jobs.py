"""What every `Store` does with periodic jobs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from parley_kit.ids import uuid7
from parley_session.domain.jobs import JobEnd, JobRecord
from parley_session.domain.model import IdempotencyRecord
from parley_session.store.base import Backlog, Store
from support.session_data import ALICE, START, after, make_chat, make_invalidation

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
CALLERS = 24


async def test_a_job_that_nobody_ever_did_has_no_record(store: Store) -> None:
    assert await store.get_job("a job") is None
    assert not await store.claim_job("a job", 1, "me")
    assert not await store.end_job("a job", 0, JobEnd(START))
    assert await store.get_job("a job") is None


async def test_of_many_replicas_one_claims_a_job_each_time(store: Store) -> None:
    for attempt in range(3):
        claimed = await asyncio.gather(
            *(store.claim_job("a job", attempt, f"replica {n}") for n in range(CALLERS))
        )
        assert sum(claimed) == 1
        record = await store.get_job("a job")
        assert record is not None
        assert (record.attempt, record.running) == (attempt + 1, True)
    assert await store.get_job("another job") is None


async def test_the_end_of_a_run_is_written_under_its_own_attempt_alone(store: Store) -> None:
    await store.claim_job("a job", 0, "killed")
    await store.claim_job("a job", 1, "its taker")
    assert not await store.end_job("a job", 1, JobEnd(after(1), after(0), 1))
    ended = JobRecord("a job", 2, False, after(60), after(0), 3)
    assert await store.end_job("a job", 2, JobEnd(after(60), after(0), 3))
    assert await store.get_job("a job") == ended
    # What is not said stays as it is.
    await store.claim_job("a job", 2, "me")
    assert await store.end_job("a job", 3, JobEnd(after(90)))
    assert await store.get_job("a job") == replace(ended, attempt=3, due_at=after(90))


async def test_a_backlog_is_what_is_due_and_counted_no_further_than_asked(store: Store) -> None:
    for n in range(4):
        await store.insert_chat(make_chat(expires_at=after(n)))
        await store.insert_chat(make_chat())
        await store.insert_invalidation(make_invalidation(created_at=after(n)))
        await store.insert_key(IdempotencyRecord(uuid7(), "ab", "c", "r", False, after(n)))
        gone = make_chat(expires_at=after(n))
        await store.insert_chat(gone)
        await store.mark_deleted(ALICE, gone.id, after(n))
    for backlog in set(Backlog) - {Backlog.UNREPORTED}:
        counted = [await store.count_backlog(backlog, after(n), 3) for n in (0, 2, 9)]
        assert counted == [0, 2, 3], backlog
