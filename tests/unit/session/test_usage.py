"""Usage counts each run once, whatever becomes of it or of its replica."""

from collections.abc import AsyncIterator
from datetime import date, timedelta

import pytest

from parley_kit.errors import ServiceError
from parley_kit.ids import uuid7
from parley_session.domain.model import CacheMode, Principal
from parley_session.domain.usage import UsageDay
from parley_session.runs.asking import NewChat
from parley_session.usage import Usage
from support.session_mortal import Death, Killed, deaths
from support.session_world import ALICE, BOB, World, asking, world

DAY = date(2026, 3, 1)
TOKENS = 6


@pytest.fixture(name="world")
async def _world() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def used(world: World, principal: Principal = ALICE) -> list[UsageDay]:
    return list(await Usage(world.store).report(principal, DAY, DAY + timedelta(days=9)))


async def test_chats_runs_tokens_and_cached_answers_are_counted_by_day(world: World) -> None:
    replica = world.replica()
    _, first = await replica.complete(asking(temperature=0.0))
    await replica.complete(asking("And?", chat=first.chat.id, temperature=0.0))
    _, hit = await replica.complete(asking(temperature=0.0))
    assert hit.run.cache is not None
    assert hit.run.cache.status.value == "exact"
    await replica.session.servicer._chats.create(ALICE, uuid7(), NewChat("", "", "", 0))
    world.time.advance(86_400)
    await replica.complete(asking("Tomorrow", cache=CacheMode.BYPASS))
    assert await used(world) == [
        UsageDay(DAY, 3, 3, 21, 3 * TOKENS, 1),
        UsageDay(DAY + timedelta(days=1), 1, 1, 7, TOKENS, 0),
    ]
    assert await used(world, BOB) == []


async def test_what_is_deleted_has_been_counted(world: World) -> None:
    replica = world.replica()
    _, ended = await replica.complete(asking())
    await replica.delete(ended.chat.id)
    assert await used(world) == [UsageDay(DAY, 1, 1, 7, TOKENS, 0)]


async def test_a_replica_that_dies_at_any_write_counts_its_run_once() -> None:
    async def play(damaged: World, death: Death) -> None:
        try:
            accepted = await damaged.replica(death).start(asking())
        except Killed:
            return
        if accepted.live is not None:
            await accepted.live.closed()

    async with world() as undisturbed:
        counting = Death()
        await play(undisturbed, counting)
        await undisturbed.replicas[0].quiet()
    assert "insert_usage" in counting.writes
    for where, death in deaths(counting.writes):
        async with world() as damaged:
            await play(damaged, death)
            await damaged.replicas[0].quiet()
            for _ in range(2):
                await damaged.repair(damaged.replica())
            days = await used(damaged)
            runs = 0 if where == "before insert_chat (1)" else 1
            assert sum(day.runs for day in days) == runs, where
            assert sum(day.chats for day in days) == runs, where


async def test_a_report_is_a_users_and_bounded(world: World) -> None:
    usage = Usage(world.store)
    for principal, last, code in (
        (Principal("acme", None), DAY, "unauthenticated"),
        (ALICE, DAY - timedelta(days=1), "invalid_request"),
        (ALICE, DAY + timedelta(days=92), "invalid_request"),
    ):
        with pytest.raises(ServiceError) as refused:
            await usage.report(principal, DAY, last)
        assert refused.value.code == code
    assert list(await usage.report(ALICE, DAY, DAY + timedelta(days=91))) == []
