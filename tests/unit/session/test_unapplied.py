"""A store that accepts a removal and does not do it: every repetition has an end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from parley_session.jobs.base import Unfinished
from parley_session.jobs.housekeeping import BATCH
from parley_session.runs.deleting import MOST_RETURNS
from parley_session.store.base import StoreUnavailable
from support.session_data import make_chat, make_invalidation
from support.session_world import Replica, World, asking

pytestmark = pytest.mark.timeout(20)


class Unapplied:
    """A method of the store that is accepted `times` times, and does nothing."""

    def __init__(self, world: World, name: str, times: int = 1_000_000) -> None:
        self.calls = 0
        self._times = times
        self._method = getattr(world.store, name)
        setattr(world.store, name, self)

    async def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return None if self.calls <= self._times else await self._method(*args)


async def do(replica: Replica, name: str) -> None:
    """Do one periodic job."""
    (job,) = (job for job in replica.session.jobs if job.name == name)
    await job.work(None)


async def test_a_deletion_whose_runs_stay_says_that_the_store_is_not_well(world: World) -> None:
    replica = world.replica()
    asked = asking()
    await replica.complete(asked)
    await replica.quiet()
    removals = Unapplied(world, "delete_runs")
    with pytest.raises(StoreUnavailable, match="still there"):
        await replica.delete(asked.chat_id)
    assert removals.calls == MOST_RETURNS + 1
    assert (await world.chat(asked.chat_id)).deleted_at is not None


async def test_a_run_that_is_inserted_after_its_removal_is_removed_again(world: World) -> None:
    replica = world.replica()
    asked = asking()
    await replica.complete(asked)
    await replica.quiet()
    removals = Unapplied(world, "delete_runs", times=MOST_RETURNS)
    assert await replica.delete(asked.chat_id)
    assert removals.calls == MOST_RETURNS + 1
    assert await world.store.list_run_ids(asked.chat_id) == []


async def test_a_confirmed_invalidation_that_stays_is_told_and_not_sent_for_ever(
    world: World,
) -> None:
    replica = world.replica()
    for _ in range(BATCH):
        await world.store.insert_invalidation(make_invalidation())
    confirmations = Unapplied(world, "confirm_invalidation")
    with pytest.raises(Unfinished, match="still there"):
        await do(replica, "send_invalidations")
    assert confirmations.calls == BATCH


async def test_expired_chats_that_stay_are_told_and_not_deleted_for_ever(world: World) -> None:
    replica = world.replica()
    expired = world.time.now() - timedelta(seconds=1)
    for _ in range(BATCH):
        await world.store.insert_chat(make_chat(expires_at=expired))
    deletions = Unapplied(world, "mark_deleted")
    with pytest.raises(Unfinished, match="still there"):
        await do(replica, "expire_chats")
    assert deletions.calls == BATCH
