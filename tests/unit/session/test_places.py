"""Which places of an answer a reader may come back to, and how much of a chat fits a page."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from parley_kit.errors import ServiceError
from parley_kit.ids import uuid7
from parley_session import chats
from parley_session.domain import bounds
from parley_session.domain.model import Role
from parley_session.runs.asking import NewChat
from support.poll import until
from support.session_data import make_message
from support.session_world import ALICE, Replica, World, asking, world


@pytest.fixture(name="world")
async def _world() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def refused(world: World, replica: Replica, run_id: str, offset: int) -> bool:
    follower = replica.session.servicer._follower
    try:
        await follower.check(await world.run(run_id), offset)
    except ServiceError as error:
        return error.code == "bad_event_id"
    return False


async def places(world: World, replica: Replica, run_id: str, end: int) -> set[int]:
    return {n for n in range(end) if not await refused(world, replica, run_id, n)}


def ends_of_characters(text: str) -> set[int]:
    return {len(text[:n].encode()) for n in range(len(text) + 1)}


async def test_the_places_of_a_stored_answer_are_between_its_characters(world: World) -> None:
    replica = world.replica()
    _, ended = await replica.complete(asking())
    expected = ends_of_characters(world.fleet.text)
    assert await places(world, replica, ended.run.id, 30) == expected


async def test_the_places_of_a_running_answer_are_known_where_it_is_made_and_elsewhere(
    world: World,
) -> None:
    world.fleet.hold_at = 5
    maker, other = world.replica(), world.replica()
    accepted = await maker.start(asking())
    so_far = "".join(world.fleet.answer[:5])
    await until(lambda: accepted.live.length == len(so_far.encode()))
    expected = ends_of_characters(so_far)
    assert await places(world, other, accepted.run.id, 30) == expected
    assert await places(world, maker, accepted.run.id, 30) == expected
    world.fleet.release.set()
    await maker.read(accepted.run.id)


async def test_a_run_of_which_nothing_was_seen_has_no_place_but_the_first(world: World) -> None:
    world.fleet.hold_at = 0
    maker = world.replica()
    accepted = await maker.start(asking())
    run = replace(await world.run(accepted.run.id), started_at=None, log=None)
    follower = world.replica().session.servicer._follower
    await follower.check(run, 0)
    with pytest.raises(ServiceError):
        await follower.check(run, 1)


async def test_a_place_that_cannot_be_known_is_left_to_the_reader(world: World) -> None:
    world.fleet.hold_at = 3
    maker = world.replica()
    accepted = await maker.start(asking())
    await until(lambda: accepted.live.length > 0)
    run = await world.run(accepted.run.id)
    other = world.replica().session.servicer._follower
    await other.check(replace(run, log="gone"), 99)
    await other.check(replace(run, log=None), 99)


async def test_a_page_of_a_chat_is_cut_by_bytes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_PAGE_BYTES", 10)
    monkeypatch.setattr(chats, "_MESSAGES_AT_ONCE", 4)
    reader = world.replica().session.servicer._chats
    chat_id = uuid7()
    await reader.create(ALICE, chat_id, NewChat("", "", "", 0))
    kept = world.store._chats[chat_id]
    world.store._chats[chat_id] = replace(kept, next_seq=12)
    # Twelve messages; the tenth is larger than a page.
    for seq in range(12):
        text = "ö" * (9 if seq == 9 else 1)
        await world.store.insert_message(make_message(chat_id, seq, role=Role.USER, content=text))

    async def seqs(before: int | None, limit: int = 50) -> tuple[list[int], bool]:
        page = await reader.read(ALICE, chat_id, limit, before)
        return [message.seq for message in page.messages], page.has_more

    assert await seqs(None) == ([10, 11], True)
    assert await seqs(10) == ([9], True)
    assert await seqs(9) == ([4, 5, 6, 7, 8], True)
    assert await seqs(9, limit=3) == ([6, 7, 8], True)
    assert await seqs(4) == ([0, 1, 2, 3], False)
