"""What every `Store` does with chats: in memory, through motor, through PyMongo's own client."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from parley_session.domain.model import Summary
from parley_session.store.base import MAX_PENDING, ListCursor, Store
from support.session_data import (
    ALICE,
    OPTIONS,
    REQUEST,
    START,
    after,
    make_chat,
    make_turn,
)
from support.session_stores import TestedStore

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
CALLERS = 24
LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)


async def test_a_chat_is_read_as_it_was_inserted(store: Store) -> None:
    chat = make_chat(
        title="t",
        expires_at=after(10),
        next_seq=2,
        pending=(make_turn(),),
        summary=Summary("so far", 4, {"org/model@1.0": 7}),
    )
    assert await store.insert_chat(chat)
    assert await store.get_chat(ALICE, chat.id) == chat


async def test_an_id_is_inserted_once(store: Store) -> None:
    chat = make_chat()
    inserted = await asyncio.gather(
        *(store.insert_chat(replace(chat, title=str(n))) for n in range(CALLERS))
    )
    assert sum(inserted) == 1
    kept = await store.get_chat(ALICE, chat.id)
    assert kept is not None
    assert kept.title == str(inserted.index(True))


async def test_an_unknown_chat_is_none(store: Store) -> None:
    assert await store.get_chat(ALICE, "nothing") is None


# acceptance -------------------------------------------------------------------


async def test_an_accepted_turn_is_pending(store: Store) -> None:
    chat = make_chat()
    await store.insert_chat(chat)
    turn = make_turn(accepted_at=after(9))
    assert await store.accept_turn(ALICE, chat, turn, 1)
    assert await store.get_chat(ALICE, chat.id) == replace(
        chat, pending=(turn,), next_seq=2, updated_at=after(9)
    )


async def test_of_many_turns_at_once_exactly_one_is_accepted(store: Store) -> None:
    chat = make_chat()
    await store.insert_chat(chat)
    turns = [make_turn() for _ in range(CALLERS)]
    accepted = await asyncio.gather(
        *(store.accept_turn(ALICE, chat, turn, MAX_PENDING) for turn in turns)
    )
    assert sum(accepted) == 1
    kept = await store.get_chat(ALICE, chat.id)
    assert kept is not None
    assert kept.pending == (turns[accepted.index(True)],)
    assert kept.next_seq == 2


async def test_turns_that_queue_take_each_a_number_of_their_own(store: Store) -> None:
    chat = make_chat()
    await store.insert_chat(chat)

    async def join() -> bool:
        while True:
            read = await store.get_chat(ALICE, chat.id)
            assert read is not None
            if len(read.pending) >= MAX_PENDING:
                return False
            if await store.accept_turn(ALICE, read, make_turn(read.next_seq), MAX_PENDING):
                return True

    assert sum(await asyncio.gather(*(join() for _ in range(CALLERS)))) == MAX_PENDING
    kept = await store.get_chat(ALICE, chat.id)
    assert kept is not None
    assert [turn.seq for turn in kept.pending] == list(range(0, 2 * MAX_PENDING, 2))
    assert kept.next_seq == 2 * MAX_PENDING


async def test_a_turn_is_refused_by_a_chat_that_is_busy_changed_or_deleted(store: Store) -> None:
    chat = make_chat()
    await store.insert_chat(chat)
    await store.accept_turn(ALICE, chat, make_turn(), 1)
    busy = await store.get_chat(ALICE, chat.id)
    assert busy is not None
    assert not await store.accept_turn(ALICE, busy, make_turn(2), 1)
    assert not await store.accept_turn(ALICE, chat, make_turn(), 8), "nextSeq has moved on"
    await store.mark_deleted(ALICE, chat.id, after(1))
    assert not await store.accept_turn(ALICE, busy, make_turn(2), 8)
    assert not await store.accept_turn(ALICE, make_chat(), make_turn(), 8), "never inserted"
    kept = await store.get_chat(ALICE, chat.id)
    assert kept == replace(busy, deleted_at=after(1))


# settling ---------------------------------------------------------------------


async def test_a_settled_turn_is_off_and_the_chat_has_moved_on(store: Store) -> None:
    first, second = make_turn(0), make_turn(2)
    chat = make_chat(pending=(first, second), next_seq=4)
    await store.insert_chat(chat)
    settled = await store.settle_turn(chat.id, first.run, messages=2, title=str.upper, at=after(7))
    assert settled == replace(
        chat,
        pending=(second,),
        message_count=2,
        title=first.message.upper(),
        updated_at=after(7),
    )
    assert await store.get_chat(ALICE, chat.id) == settled


@pytest.mark.parametrize("told", ["rightly", "too early", "of another's turn"])
async def test_whoever_settles_a_turn_may_say_how_the_chat_was(store: Store, told: str) -> None:
    first, second = make_turn(0), make_turn(2)
    chat = make_chat(pending=(first,), next_seq=2)
    await store.insert_chat(chat)
    known = chat
    if told != "rightly":
        assert await store.set_title(ALICE, chat.id, "mine") is not None
        assert await store.accept_turn(ALICE, chat, second, 2)
    if told == "of another's turn":
        known = replace(chat, pending=(second,))
    settled = await store.settle_turn(
        chat.id, first.run, messages=2, title=str.upper, at=after(7), known=known
    )
    kept = await store.get_chat(ALICE, chat.id)
    assert settled == kept
    assert kept is not None
    right = told == "rightly"
    assert kept.title == (first.message.upper() if right else "mine")
    assert kept.pending == (() if right else (second,))
    assert kept.message_count == 2


async def test_a_chat_that_takes_a_turn_is_known_without_reading_it_again(store: Store) -> None:
    chat = make_chat()
    await store.insert_chat(chat)
    assert await store.accept_turn(ALICE, chat, make_turn(), 1)
    read = await store.get_chat(ALICE, chat.id)
    assert read is not None
    assert read.revision == chat.revision + 1


async def test_only_the_first_turn_can_be_settled(store: Store) -> None:
    first, second = make_turn(0), make_turn(2)
    chat = make_chat(pending=(first, second), next_seq=4)
    await store.insert_chat(chat)
    for chat_id, run in ((chat.id, second.run), (chat.id, "other"), ("other", first.run)):
        assert not await store.settle_turn(chat_id, run, messages=2, title=str.upper, at=after(7))
    assert await store.get_chat(ALICE, chat.id) == chat


async def test_a_turn_settled_by_many_at_once_counts_once(store: Store) -> None:
    turn = make_turn()
    chat = make_chat(pending=(turn,), next_seq=2)
    await store.insert_chat(chat)
    settled = await asyncio.gather(
        *(
            store.settle_turn(chat.id, turn.run, messages=2, title=None, at=after(1))
            for _ in range(CALLERS)
        )
    )
    assert sum(chat is not None for chat in settled) == 1
    kept = await store.get_chat(ALICE, chat.id)
    assert kept is not None
    assert (kept.pending, kept.message_count) == ((), 2)


async def test_no_turn_is_lost_between_accepting_and_settling(store: Store) -> None:
    turn = make_turn()
    chat = make_chat(pending=(turn,), next_seq=2)
    await store.insert_chat(chat)
    for _ in range(8):
        read = await store.get_chat(ALICE, chat.id)
        assert read is not None
        following = make_turn(read.next_seq)
        accepted, settled, _ = await asyncio.gather(
            store.accept_turn(ALICE, read, following, MAX_PENDING),
            store.settle_turn(chat.id, turn.run, messages=2, title=None, at=after(3)),
            store.set_title(ALICE, chat.id, "by hand"),
        )
        assert accepted
        assert settled
        turn = following
    kept = await store.get_chat(ALICE, chat.id)
    assert kept is not None
    assert kept.pending == (turn,)
    assert (kept.message_count, kept.next_seq, kept.title) == (16, 18, "by hand")


async def test_a_title_of_the_users_own_is_kept_when_a_turn_is_settled(store: Store) -> None:
    turn = make_turn()
    chat = make_chat(pending=(turn,), title="mine")
    await store.insert_chat(chat)
    await store.settle_turn(chat.id, turn.run, messages=2, title=str.upper, at=after(1))
    kept = await store.get_chat(ALICE, chat.id)
    assert kept is not None
    assert kept.title == "mine"


# listing ----------------------------------------------------------------------


async def test_pages_hold_every_chat_once_also_where_times_are_equal(store: Store) -> None:
    chats = [make_chat(title=str(n), updated_at=after(n // 4)) for n in range(13)]
    for chat in chats:
        await store.insert_chat(chat)
    seen: list[str] = []
    cursor = None
    while page := await store.list_chats(ALICE, 3, cursor):
        assert len(page) <= 3
        seen += [row.id for row in page]
        cursor = ListCursor(page[-1].updated_at, page[-1].id)
    ordered = sorted(chats, key=lambda chat: (chat.updated_at, chat.id), reverse=True)
    assert seen == [chat.id for chat in ordered]


async def test_a_row_says_what_the_chat_says(store: Store) -> None:
    chat = make_chat(title="t", message_count=4, updated_at=after(3))
    await store.insert_chat(chat)
    (row,) = await store.list_chats(ALICE, 10, None)
    assert (row.id, row.title, row.created_at, row.updated_at, row.message_count) == (
        chat.id,
        "t",
        START,
        after(3),
        4,
    )


async def test_deleted_and_expired_chats_are_not_listed(tested: TestedStore) -> None:
    store, now = tested.store, tested.time()
    soon = make_chat(expires_at=now + timedelta(minutes=1))
    gone = make_chat()
    for chat in (soon, gone, make_chat(expires_at=now)):
        await store.insert_chat(chat)
    await store.mark_deleted(ALICE, gone.id, now)
    assert [row.id for row in await store.list_chats(ALICE, 10, None)] == [soon.id]
    tested.time.time = now + timedelta(minutes=2)
    assert await store.list_chats(ALICE, 10, None) == []


async def test_a_list_needs_somebody_and_a_limit(store: Store) -> None:
    with pytest.raises(ValueError):
        await store.list_chats(replace(ALICE, user=None), 10, None)
    with pytest.raises(ValueError):
        await store.list_chats(ALICE, 0, None)


# titles, deleting -------------------------------------------------------------


async def test_a_title_is_set_and_answered(store: Store) -> None:
    chat = make_chat()
    await store.insert_chat(chat)
    assert await store.set_title(ALICE, chat.id, "new") == replace(chat, title="new")
    assert await store.get_chat(ALICE, chat.id) == replace(chat, title="new")
    assert await store.set_title(ALICE, "other", "new") is None


async def test_a_chat_is_deleted_once_and_its_title_stays(store: Store) -> None:
    chat = make_chat(title="t")
    await store.insert_chat(chat)
    deleted = replace(chat, deleted_at=after(1))
    assert await store.mark_deleted(ALICE, chat.id, after(1)) == deleted
    assert await store.mark_deleted(ALICE, chat.id, after(2)) == deleted
    assert await store.set_title(ALICE, chat.id, "new") is None
    assert await store.get_chat(ALICE, chat.id) == deleted
    assert await store.mark_deleted(ALICE, "other", after(1)) is None
    assert not await store.insert_chat(chat), "a tombstone keeps its id"


async def test_a_stripped_chat_keeps_its_ids_and_none_of_its_text(store: Store) -> None:
    turn = make_turn()
    chat = make_chat(title="t", pending=(turn,), next_seq=2, summary=Summary("s", 0))
    await store.insert_chat(chat)
    await store.strip_chat(chat.id)
    assert await store.get_chat(ALICE, chat.id) == chat, "it is not deleted"
    await store.mark_deleted(ALICE, chat.id, after(1))
    await store.strip_chat(chat.id)
    await store.strip_chat(chat.id)
    await store.strip_chat("other")
    bare = replace(REQUEST, options=replace(OPTIONS, stop=(), json_schema=""))
    assert await store.get_chat(ALICE, chat.id) == replace(
        chat,
        title="",
        system="",
        summary=None,
        pending=(replace(turn, request=bare),),
        deleted_at=after(1),
    )


async def test_a_late_settling_gives_a_tombstone_no_title(store: Store) -> None:
    turn = make_turn()
    chat = make_chat(pending=(turn,))
    await store.insert_chat(chat)
    await store.mark_deleted(ALICE, chat.id, after(1))
    assert await store.settle_turn(chat.id, turn.run, messages=2, title=str.upper, at=after(2))
    kept = await store.get_chat(ALICE, chat.id)
    assert kept is not None
    assert (kept.title, kept.pending) == ("", ())


async def test_only_a_tombstone_is_removed(store: Store) -> None:
    chat = make_chat()
    await store.insert_chat(chat)
    await store.remove_tombstone(chat.id)
    assert await store.get_chat(ALICE, chat.id) == chat
    await store.mark_deleted(ALICE, chat.id, after(1))
    await store.remove_tombstone(chat.id)
    await store.remove_tombstone(chat.id)
    assert await store.get_chat(ALICE, chat.id) is None


# sweeping ---------------------------------------------------------------------


async def test_busy_chats_are_found_by_their_first_turn(store: Store) -> None:
    old = make_chat(pending=(make_turn(0, accepted_at=after(1)), make_turn(2)), next_seq=4)
    newer = make_chat()
    for chat in (make_chat(), newer, old, make_chat(pending=(make_turn(accepted_at=after(9)),))):
        await store.insert_chat(chat)
    await store.accept_turn(ALICE, newer, make_turn(accepted_at=after(2)), 1)
    found = await store.list_busy_chats(after(5), 10)
    assert [chat.id for chat in found] == [old.id, newer.id]
    assert found[0] == old
    assert [chat.id for chat in await store.list_busy_chats(after(5), 1)] == [old.id]
    assert await store.list_busy_chats(after(1), 10) == []


async def test_a_chat_that_is_busy_since_a_time_to_come_is_found(store: Store) -> None:
    chats = [make_chat(pending=(make_turn(accepted_at=after(n)),)) for n in (1, 5, 7, 3600)]
    for chat in chats:
        await store.insert_chat(chat)
    past, _, _, to_come = chats
    found = await store.list_busy_chats(after(5), 10, after(7))
    assert [chat.id for chat in found] == [past.id, to_come.id]


async def test_a_chat_is_busy_since_the_turn_that_is_now_the_first(store: Store) -> None:
    first, second = (make_turn(n, accepted_at=after(n)) for n in (0, 2))
    chat = make_chat(pending=(first, second), next_seq=4)
    await store.insert_chat(chat)
    await store.settle_turn(chat.id, first.run, messages=2, title=None, at=after(3))
    assert await store.list_busy_chats(after(1), 10) == []
    assert len(await store.list_busy_chats(after(3), 10)) == 1
    await store.settle_turn(chat.id, second.run, messages=2, title=None, at=after(4))
    assert await store.list_busy_chats(after(99), 10) == []
    idle = await store.get_chat(ALICE, chat.id)
    assert idle is not None
    await store.accept_turn(ALICE, idle, make_turn(4, accepted_at=after(50)), 1)
    assert await store.list_busy_chats(after(50), 10) == []
    assert len(await store.list_busy_chats(after(51), 10)) == 1


async def test_expired_chats_and_tombstones_are_found_in_their_order(store: Store) -> None:
    chats = [make_chat(expires_at=after(n)) for n in (3, 1, 2, 99)]
    for chat in chats:
        await store.insert_chat(chat)
    found = await store.list_expired_chats(after(3), 10)
    assert [chat.id for chat in found] == [chats[n].id for n in (1, 2, 0)]
    for seconds, chat in ((7, chats[0]), (6, chats[1]), (8, chats[2])):
        await store.mark_deleted(ALICE, chat.id, after(seconds))
    assert await store.list_expired_chats(after(50), 10) == []
    tombstones = await store.list_tombstones(after(6), after(8), 10)
    assert [chat.id for chat in tombstones] == [chats[1].id, chats[0].id]
    assert len(await store.list_tombstones(after(7), after(9), 10)) == 2
    assert len(await store.list_tombstones(LONG_AGO, after(9), 1)) == 1


async def test_a_deleted_chat_is_no_longer_swept_as_busy(store: Store) -> None:
    chat = make_chat(pending=(make_turn(),))
    await store.insert_chat(chat)
    await store.mark_deleted(ALICE, chat.id, after(1))
    assert await store.list_busy_chats(after(99), 10) == []


async def test_a_summary_is_replaced_only_as_it_was_read(store: Store) -> None:
    chat = make_chat()
    await store.insert_chat(chat)
    one, two = Summary("one", 4, {"a.b": 3}), Summary("two", 8)
    assert not await store.set_summary(chat.id, 4, one)
    assert await store.set_summary(chat.id, 0, one)
    assert not await store.set_summary(chat.id, 0, two)
    found = await store.get_chat(ALICE, chat.id)
    assert found is not None
    assert found.summary == one
    assert await store.set_summary(chat.id, 4, two)
    await store.mark_deleted(ALICE, chat.id, after(1))
    assert not await store.set_summary(chat.id, 8, one)
