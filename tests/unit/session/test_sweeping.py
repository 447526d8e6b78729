"""What housekeeping puts right: expiry, tombstones, invalidations; and what sweeping does."""

import pytest
from prometheus_client import REGISTRY

from parley_session.domain.model import Rating
from parley_session.jobs.base import Unfinished
from parley_session.jobs.housekeeping import CLEANED_AT_AGES
from parley_session.runs.asking import NewChat
from support.session_mortal import Killed
from support.session_world import ALICE, LEASE, SETTINGS, World, asking


def swept(kind: str) -> float:
    """How often the sweeper has counted a kind."""
    labels = {"job": "sweep_runs", "kind": kind}
    return REGISTRY.get_sample_value("parley_session_job_items_total", labels) or 0.0


async def test_a_chat_past_its_expiry_is_deleted(world: World) -> None:
    replica = world.replica()
    brief, lasting = asking(new=NewChat("", "", "", 60)), asking()
    for asked in (brief, lasting):
        await replica.complete(asked)
    world.time.advance(59)
    await replica.sweep()
    assert (await world.chat(brief.chat_id)).deleted_at is None
    world.time.advance(1)
    await replica.sweep()
    assert (await world.chat(brief.chat_id)).deleted_at is not None
    assert await world.messages(brief.chat_id) == []
    assert await world.store.list_run_ids(brief.chat_id) == []
    assert (await world.chat(lasting.chat_id)).deleted_at is None


async def test_a_tombstone_is_cleaned_at_every_age_and_goes_at_the_end(world: World) -> None:
    replica = world.replica()
    asked = asking()
    await replica.complete(asked)
    await replica.quiet()
    left = (await world.messages(asked.chat_id))[0]
    await replica.delete(asked.chat_id)
    at = 0.0
    for age in CLEANED_AT_AGES:
        # Somebody who slept through the deletion.
        await world.store.insert_message(left)
        world.time.advance(age + 0.5 - at)
        at = age + 0.5
        await replica.sweep()
        assert await world.messages(asked.chat_id) == []
    await world.store.insert_message(left)
    world.time.advance(SETTINGS.tombstone_seconds)
    await replica.sweep()
    assert await world.store.get_chat(ALICE, asked.chat_id) is None
    assert await world.store.get_message(ALICE, left.id) is None


async def test_an_invalidation_is_sent_until_the_cache_confirms_it(world: World) -> None:
    replica = world.replica()
    asked = asking()
    await replica.complete(asked)
    world.cache.away = True
    await replica.session.servicer._chats.rate(ALICE, asked.chat_id, 1, Rating.DOWN)
    await replica.delete(asked.chat_id)
    with pytest.raises(Unfinished):
        await replica.sweep()
    assert len(await world.store.list_invalidations(10)) == 2
    world.cache.away = False
    await replica.sweep()
    assert await world.store.list_invalidations(10) == []
    assert [one.message for one in world.cache.invalidated] == [f"{asked.chat_id}-1", None]


async def test_an_answer_rated_up_again_may_be_served(world: World) -> None:
    replica = world.replica()
    asked = asking()
    await replica.complete(asked)
    chats = replica.session.servicer._chats
    await chats.rate(ALICE, asked.chat_id, 1, Rating.DOWN)
    assert (await world.messages(asked.chat_id))[1].flagged
    await chats.rate(ALICE, asked.chat_id, 1, Rating.UP)
    message = (await world.messages(asked.chat_id))[1]
    assert (message.rating, message.flagged) == (Rating.UP, False)


async def test_a_turn_whose_acceptor_died_is_stored_first_and_made_when_it_is_silent(
    world: World,
) -> None:
    replica = world.replica()
    asked = asking()
    dying = world.replica()
    dying.death.at, dying.death.after = 1, True
    with pytest.raises(Killed):
        await dying.start(asked)
    before = swept("turn")
    world.time.advance(LEASE)
    await replica.sweep()
    assert swept("turn") == before + 1
    assert not (await world.run(asked.run_id)).state.final
    for _ in range(2):
        world.time.advance(LEASE)
        await replica.sweep()
        await replica.quiet()
    assert (await world.run(asked.run_id)).content == world.fleet.text
