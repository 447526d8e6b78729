"""What every `Store` does with the usage report."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest

from parley_kit.ids import uuid7
from parley_session.domain.usage import ReportRow, UsageRecord, UserDay
from parley_session.store.base import Backlog, Store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
DAY = date(2026, 3, 1)
NEXT = DAY + timedelta(days=1)
WHOSE = UserDay(DAY, "acme", "alice")


def used(whose: UserDay = WHOSE, model: str = "m", **changes: object) -> UsageRecord:
    record = UsageRecord(uuid7(), whose.tenant, whose.user, whose.day, model, runs=1)
    return replace(record, **changes)  # type: ignore[arg-type]


def reported(whose: UserDay = WHOSE, model: str = "m", *sums: int) -> ReportRow:
    return ReportRow(whose.day, whose.tenant, whose.user, model, *sums)


async def test_what_is_inserted_is_not_reported_until_it_was_marked_and_settled(
    store: Store,
) -> None:
    bob = UserDay(DAY, "acme", "bob")
    for record in (used(), used(), used(bob), used(UserDay(NEXT, "acme", "alice"))):
        await store.insert_usage(record)
    assert await store.list_unreported(NEXT, 10) == [WHOSE, bob]
    assert len(await store.list_unreported(NEXT + timedelta(days=1), 10)) == 3
    assert await store.list_unreported(DAY, 10) == []
    await store.mark_reporting(WHOSE, "token")
    late = used()
    await store.insert_usage(late)
    await store.settle_reporting(WHOSE, "another token")
    assert await store.list_unreported(NEXT, 10) == [WHOSE, bob]
    await store.settle_reporting(WHOSE, "token")
    assert await store.list_unreported(NEXT, 10) == [WHOSE, bob], "one came after the marking"
    await store.mark_reporting(WHOSE, "last token")
    await store.settle_reporting(WHOSE, "last token")
    assert await store.list_unreported(NEXT, 10) == [bob]
    assert not await store.insert_usage(late), "what is reported is not counted again"
    assert await store.list_unreported(NEXT, 10) == [bob]


async def test_of_two_that_report_the_same_day_the_later_marking_settles(store: Store) -> None:
    await store.insert_usage(used())
    await store.mark_reporting(WHOSE, "first")
    await store.mark_reporting(WHOSE, "second")
    await store.settle_reporting(WHOSE, "first")
    assert await store.list_unreported(NEXT, 10) == [WHOSE]
    await store.settle_reporting(WHOSE, "second")
    assert await store.list_unreported(NEXT, 10) == []


async def test_a_day_is_summed_by_model_reported_or_not(store: Store) -> None:
    await store.insert_usage(used(prompt_tokens=7, completion_tokens=3))
    await store.mark_reporting(WHOSE, "token")
    await store.settle_reporting(WHOSE, "token")
    for record in (
        used(prompt_tokens=5, cached_answers=1),
        used(model="n", runs=0, chats=1),
        used(UserDay(DAY, "acme", "bob")),
        used(UserDay(DAY, "other", "alice")),
        used(UserDay(NEXT, "acme", "alice")),
    ):
        await store.insert_usage(record)
    assert list(await store.sum_models(WHOSE)) == [
        reported(WHOSE, "m", 0, 2, 12, 3, 1),
        reported(WHOSE, "n", 1, 0, 0, 0, 0),
    ]


async def test_a_row_is_raised_and_never_lowered(store: Store) -> None:
    rows = [reported(WHOSE, "m", n % 3, n, 2 * n, 3 * n, 0) for n in range(1, 9)]
    await asyncio.gather(*(store.raise_report(row) for row in rows[::-1]))
    await store.raise_report(rows[0])
    assert list(await store.list_report(DAY, DAY, None, None, 10)) == [
        reported(WHOSE, "m", 2, 8, 16, 24, 0)
    ]


async def test_the_report_is_read_in_order_by_page_and_by_tenant(store: Store) -> None:
    names = [("acme", "alice"), ("acme", "alice 2"), ("acme-2", "a"), ("ümlaut", "名")]
    rows = [
        reported(UserDay(day, tenant, user), model, 1, 2, 3, 4, 5)
        for day in (DAY - timedelta(days=1), DAY, NEXT, NEXT + timedelta(days=1))
        for tenant, user in names
        for model in ("", "m", "m/2")
    ]
    for row in reversed(rows):
        await store.raise_report(row)
    wanted = sorted(row for row in rows if row.day in (DAY, NEXT))
    assert list(await store.list_report(DAY, NEXT, None, None, 100)) == wanted
    paged: list[ReportRow] = []
    while page := await store.list_report(DAY, NEXT, None, paged[-1] if paged else None, 5):
        paged += page
    assert paged == wanted
    own = [row for row in wanted if row.tenant == "acme"]
    assert list(await store.list_report(DAY, NEXT, "acme", None, 100)) == own
    assert list(await store.list_report(DAY, NEXT, "acme", own[3], 2)) == own[4:6]
    assert list(await store.list_report(NEXT, DAY, None, None, 10)) == []


async def test_what_is_not_reported_is_counted_once_its_day_is_over(store: Store) -> None:
    for _ in range(3):
        await store.insert_usage(used())
    begin = datetime.combine(DAY, time(), UTC)
    for hours, most, counted in ((0, 9, 0), (23.99, 9, 0), (24, 9, 3), (48, 2, 2)):
        before = begin + timedelta(hours=hours)
        assert await store.count_backlog(Backlog.UNREPORTED, before, most) == counted
