"""What every `Store` does with idempotency keys and usage."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date, timedelta

import pytest

from parley_kit.ids import uuid7
from parley_session.domain.model import IdempotencyRecord, Principal
from parley_session.domain.usage import UsageDay, UsageRecord
from parley_session.store.base import MAX_USAGE_DAYS, Store
from support.session_data import ALICE, STRANGERS, after

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
CALLERS = 24
DAY = date(2026, 3, 1)


def make_key(**changes: object) -> IdempotencyRecord:
    record = IdempotencyRecord(uuid7(), "ab" * 32, uuid7(), uuid7(), False, after(60))
    return replace(record, **changes)  # type: ignore[arg-type]


def make_usage(principal: Principal = ALICE, **changes: object) -> UsageRecord:
    assert principal.user is not None
    record = UsageRecord(
        uuid7(), principal.tenant, principal.user, DAY, runs=1, prompt_tokens=7, completion_tokens=3
    )
    return replace(record, **changes)  # type: ignore[arg-type]


# keys -------------------------------------------------------------------------


async def test_a_key_is_read_as_it_was_inserted(store: Store) -> None:
    for record in (make_key(), make_key(run="", background=True)):
        assert await store.insert_key(record)
        assert await store.get_key(record.id) == record
    assert await store.get_key("nothing") is None


async def test_of_many_requests_with_a_key_one_is_the_first(store: Store) -> None:
    record = make_key()
    tries = [replace(record, run=uuid7()) for _ in range(CALLERS)]
    inserted = await asyncio.gather(*(store.insert_key(each) for each in tries))
    assert sum(inserted) == 1
    assert await store.get_key(record.id) == tries[inserted.index(True)]


@pytest.mark.parametrize("run", ["a run", ""])
async def test_an_expired_key_is_replaced_by_exactly_one(store: Store, run: str) -> None:
    expired = make_key(run=run)
    await store.insert_key(expired)
    tries = [
        make_key(id=expired.id, run=run and uuid7(), expires_at=after(120), background=True)
        for _ in range(CALLERS)
    ]
    replaced = await asyncio.gather(*(store.replace_key(expired, each) for each in tries))
    assert sum(replaced) == 1
    assert await store.get_key(expired.id) == tries[replaced.index(True)]
    assert not await store.replace_key(make_key(), make_key()), "never inserted"


async def test_only_expired_keys_are_removed_and_as_many_as_asked_for(store: Store) -> None:
    keys = [make_key(expires_at=after(n)) for n in range(4)]
    for record in keys:
        await store.insert_key(record)
    assert await store.delete_expired_keys(after(3), 2) == 2
    assert await store.delete_expired_keys(after(3), 9) == 1
    assert await store.delete_expired_keys(after(3), 9) == 0
    assert [await store.get_key(record.id) for record in keys] == [None, None, None, keys[3]]


# usage ------------------------------------------------------------------------


async def test_usage_is_summed_by_day(store: Store) -> None:
    next_day = DAY + timedelta(days=1)
    for record in (
        make_usage(),
        make_usage(cached_answers=1, chats=1),
        make_usage(day=next_day, runs=0, chats=1, prompt_tokens=0, completion_tokens=0),
        make_usage(day=DAY - timedelta(days=1)),
        make_usage(day=DAY + timedelta(days=3)),
    ):
        assert await store.insert_usage(record)
    assert list(await store.sum_usage(ALICE, DAY, DAY + timedelta(days=2))) == [
        UsageDay(DAY, 1, 2, 14, 6, 1),
        UsageDay(next_day, 1, 0, 0, 0, 0),
    ]
    assert len(await store.sum_usage(ALICE, DAY, DAY)) == 1


async def test_a_run_is_counted_once_however_often_it_is_finished(store: Store) -> None:
    record = make_usage()
    counted = await asyncio.gather(*(store.insert_usage(record) for _ in range(CALLERS)))
    assert sum(counted) == 1
    assert not await store.insert_usage(replace(record, day=DAY + timedelta(days=1)))
    summed = await store.sum_usage(ALICE, DAY, DAY + timedelta(days=2))
    assert list(summed) == [UsageDay(DAY, 0, 1, 7, 3, 0)]


async def test_many_runs_at_once_are_all_counted(store: Store) -> None:
    await asyncio.gather(*(store.insert_usage(make_usage()) for _ in range(CALLERS)))
    assert list(await store.sum_usage(ALICE, DAY, DAY)) == [
        UsageDay(DAY, 0, CALLERS, 7 * CALLERS, 3 * CALLERS, 0)
    ]


async def test_usage_is_its_users_alone(store: Store) -> None:
    await store.insert_usage(make_usage())
    for stranger in STRANGERS:
        if stranger.user is not None:
            assert list(await store.sum_usage(stranger, DAY, DAY)) == []


async def test_usage_is_summed_for_a_user_and_over_a_bounded_time(store: Store) -> None:
    await store.sum_usage(ALICE, DAY, DAY + timedelta(days=MAX_USAGE_DAYS - 1))
    for principal, last in (
        (ALICE, DAY + timedelta(days=MAX_USAGE_DAYS)),
        (ALICE, DAY - timedelta(days=1)),
        (Principal("acme", None), DAY),
    ):
        with pytest.raises(ValueError, match="usage"):
            await store.sum_usage(principal, DAY, last)
