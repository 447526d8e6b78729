"""The usage report says what `/usage` says, whatever happened while it was made."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any, cast

import pytest

from parley_kit.ids import uuid7
from parley_session.clock import Clock
from parley_session.domain.model import CacheMode, Principal
from parley_session.domain.usage import ReportRow, UsageRecord
from parley_session.jobs.usage_report import UsageReporter
from parley_session.report import read_report
from parley_session.runs.asking import NewChat
from parley_session.store.base import MAX_USAGE_DAYS, Store
from parley_session.store.memory.store import MemoryStore
from parley_session.usage import Usage
from support.session_fakes import model
from support.session_mortal import Death, Killed, deaths
from support.session_world import ALICE, BOB, World, asking, world

DAY = date(2026, 3, 1)
NEXT = DAY + timedelta(days=1)
USERS = [Principal("acme", "alice"), Principal("acme", "bob"), Principal("other", "alice")]


@pytest.fixture(name="world")
async def _world() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def rows(store: Store, tenant: str | None = None) -> list[ReportRow]:
    last = DAY + timedelta(days=MAX_USAGE_DAYS - 1)
    return [row async for row in read_report(store, DAY, last, tenant)]


async def judge(store: Store, *users: Principal) -> None:
    """Compare the report with what `/usage` says of these users, who are all there are."""
    last = DAY + timedelta(days=MAX_USAGE_DAYS - 1)
    said = {
        (day.day, user.tenant, user.user, name): getattr(day, name)
        for user in users
        for day in await Usage(store).report(user, DAY, last)
        for name in ("chats", "runs", "prompt_tokens", "completion_tokens", "cached_answers")
    }
    summed: Counter[tuple[date, str, str | None, str]] = Counter(dict.fromkeys(said, 0))
    for row in await rows(store):
        for name in ("chats", "runs", "prompt_tokens", "completion_tokens", "cached_answers"):
            summed[row.day, row.tenant, row.user, name] += getattr(row, name)
    assert summed == said


def reporter(world: World) -> UsageReporter:
    return UsageReporter(world.store, world.time.clock())


async def test_a_day_is_reported_by_user_and_model_once_it_is_over(world: World) -> None:
    world.fleet.served["other"] = model(id="other")
    replica = world.replica()
    _, first = await replica.complete(asking(temperature=0.0))
    await replica.complete(asking(temperature=0.0))
    await replica.complete(asking(cache=CacheMode.BYPASS), BOB)
    await replica.complete(asking("Else", new=NewChat("", "", "other", 0)))
    await replica.tidy()
    assert await rows(world.store) == [], "the day is not over"
    world.time.advance(86_400)
    await replica.complete(asking("Tomorrow"))
    await replica.tidy()
    assert await rows(world.store) == [
        ReportRow(DAY, "acme", "alice", "other", 1, 1, 7, 6, 0),
        ReportRow(DAY, "acme", "alice", first.chat.model, 2, 2, 14, 12, 1),
        ReportRow(DAY, "acme", "bob", first.chat.model, 1, 1, 7, 6, 0),
    ]
    assert await rows(world.store, "nobody") == []
    await reporter(world).report(NEXT)
    await judge(world.store, ALICE, BOB)


async def test_what_comes_late_and_what_is_deleted_are_reported(world: World) -> None:
    replica = world.replica()
    _, ended = await replica.complete(asking())
    await replica.delete(ended.chat.id)
    world.time.advance(86_400)
    await replica.tidy()
    await judge(world.store, ALICE)
    late = UsageRecord(uuid7(), "acme", "alice", DAY, "sim", runs=1, prompt_tokens=5)
    world.time.advance(9 * 86_400)
    await world.store.insert_usage(late)
    for _ in range(2):
        await replica.tidy()
        await judge(world.store, ALICE)
    assert sum(row.runs for row in await rows(world.store)) == 2


async def test_a_replica_that_dies_at_any_write_of_the_report_leaves_it_to_the_next() -> None:
    async def fill(store: Store) -> None:
        for n, user in enumerate(USERS):
            assert user.user is not None
            for name in ("m", "n"):
                await store.insert_usage(
                    UsageRecord(uuid7(), user.tenant, user.user, DAY, name, runs=1, chats=n)
                )

    async def play(damaged: World, death: Death) -> None:
        await fill(damaged.store)
        damaged.time.advance(86_400)
        try:
            await damaged.replica(death).tidy()
        except Killed:
            return

    counting = Death()
    async with world() as undisturbed:
        await play(undisturbed, counting)
        await judge(undisturbed.store, *USERS)
    assert {"mark_reporting", "raise_report", "settle_reporting"} <= set(counting.writes)
    for where, death in deaths(counting.writes):
        async with world() as damaged:
            await play(damaged, death)
            # Something more of a day that may be half reported.
            await fill(damaged.store)
            await damaged.replica().tidy()
            await judge(damaged.store, *USERS)
            assert await damaged.store.list_unreported(NEXT, 9) == [], where


class Interleaving:
    """A store whose operations take effect some turns of the loop after they were asked for."""

    def __init__(self, inner: MemoryStore, chance: random.Random) -> None:
        self._inner = inner
        self._chance = chance

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*args: Any) -> Any:
            await self.pause()
            found = await method(*args)
            await self.pause()
            return found

        return call

    async def pause(self) -> None:
        for _ in range(self._chance.choice((0, 1, 2, 5, 20))):
            await asyncio.sleep(0)


async def test_reports_made_at_once_and_broken_off_are_right_in_any_order() -> None:
    for seed in range(200):
        inner = MemoryStore()
        interleaving = Interleaving(inner, random.Random(seed))
        store = cast(Store, interleaving)
        clock = World().time.clock()

        async def insert(store: Store = store) -> None:
            record = UsageRecord(uuid7(), "acme", "alice", DAY, "m", runs=1)
            await store.insert_usage(record)

        async def report(store: Store = store, clock: Clock = clock) -> None:
            await UsageReporter(store, clock).report(DAY)

        await insert(inner)
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            made = [group.create_task(work()) for work in (report, insert, report, insert, report)]
            for _ in range(4):
                await interleaving.pause()
            made[2].cancel()
        await UsageReporter(inner, clock).report(DAY)
        assert await inner.list_unreported(NEXT, 9) == [], seed
        await judge(inner, ALICE)
        assert sum(row.runs for row in await rows(inner)) == 3, seed
