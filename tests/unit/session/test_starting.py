"""Accepting turns, and what is met instead of a free chat."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from parley_kit.errors import ServiceError
from parley_session.domain.model import CacheStatus, Chat, FinishReason, Role, Run, RunState
from parley_session.runs.asking import Completion, NewChat
from parley_session.store.base import StoreUnavailable
from support.poll import until
from support.session_world import ALICE, BOB, Replica, World, asking


async def test_a_new_chat_is_made_with_its_question_and_its_answer(world: World) -> None:
    replica = world.replica()
    asked = asking("Say hello. Then stop.")
    text, ended = await replica.complete(asked)

    assert text == world.fleet.text
    assert ended.run.state is RunState.COMPLETED
    assert ended.run.finish_reason is FinishReason.STOP
    assert ended.run.usage.prompt_tokens == 7
    assert ended.run.usage.completion_tokens == 6
    assert ended.run.usage.cached_prompt_tokens == 2
    assert ended.run.cache is not None
    assert ended.run.cache.status is CacheStatus.MISS
    chat = await world.chat(asked.chat_id)
    assert chat.title == "Say hello."
    assert chat.message_count == 2
    assert chat.pending == ()
    messages = await world.messages(asked.chat_id)
    assert [(m.role, m.content) for m in messages] == [
        (Role.USER, "Say hello. Then stop."),
        (Role.ASSISTANT, text),
    ]


async def test_what_done_says_of_the_chat_is_stored_when_it_is_said(world: World) -> None:
    replica = world.replica()
    asked = asking()
    _, ended = await replica.complete(asked)
    assert ended.chat == await world.chat(asked.chat_id)
    _, second = await replica.complete(asking("And now?", chat=asked.chat_id))
    assert second.chat.message_count == 4


async def test_an_empty_chat_gets_its_title_from_its_first_message(world: World) -> None:
    replica = world.replica()
    chats = replica.session.servicer._chats
    asked = asking("What is a lease? Tell me.")
    chat, _ = await chats.create(ALICE, asked.chat_id, NewChat("", "", "", 0))
    assert chat.title == ""
    await replica.complete(asking("What is a lease? Tell me.", chat=asked.chat_id))
    assert (await world.chat(asked.chat_id)).title == "What is a lease?"


async def test_a_given_title_is_kept(world: World) -> None:
    asked = asking(new=NewChat("Mine", "", "", 0))
    await world.replica().complete(asked)
    assert (await world.chat(asked.chat_id)).title == "Mine"


async def test_a_repeated_request_is_the_same_run(world: World) -> None:
    replica, other = world.replica(), world.replica()
    asked = asking()
    first, _ = await replica.complete(asked)
    for repeat in (replica, other):
        accepted = await repeat.start(asked)
        assert accepted.repeated
        text, _ = await repeat.read(accepted.run.id)
        assert text == first
    assert len(world.fleet.draws) == 1
    assert (await world.chat(asked.chat_id)).message_count == 2


async def test_two_callers_with_the_same_ids_share_one_run(world: World) -> None:
    replica, other = world.replica(), world.replica()
    asked = asking()
    world.fleet.pause = True
    answers = await asyncio.gather(*(r.complete(asked) for r in (replica, other, replica)))
    assert {text for text, _ in answers} == {world.fleet.text}
    assert len(world.fleet.draws) == 1
    assert len(await world.messages(asked.chat_id)) == 2


async def test_another_message_meets_run_in_progress_with_the_run(world: World) -> None:
    replica = world.replica()
    world.fleet.hold_at = 2
    asked = asking()
    accepted = await replica.start(asked)
    for where in (replica, world.replica()):
        with pytest.raises(ServiceError) as refused:
            await where.start(asking("Me too", chat=asked.chat_id))
        assert refused.value.code == "run_in_progress"
        assert refused.value.metadata == {"run_id": asked.run_id}
    world.fleet.release.set()
    await replica.read(accepted.run.id)
    text, _ = await replica.complete(asking("Me too", chat=asked.chat_id))
    assert text == world.fleet.text


async def test_a_committed_turn_at_the_head_is_finished_by_who_meets_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = world.replica()
    asked = asking()
    await replica.complete(asked)
    # As if the holder had died between the commit and what follows it.
    chat = await world.chat(asked.chat_id)
    await world.store.delete_messages(asked.chat_id, 0)
    turn_chat = await world.store.get_chat(ALICE, asked.chat_id)
    assert turn_chat is not None
    second = asking("Two", chat=asked.chat_id)
    dying = world.replica()
    await _die_at(monkeypatch, dying, "settle_turn", second)
    assert (await world.chat(asked.chat_id)).pending
    text, ended = await world.replica().complete(asking("Three", chat=asked.chat_id))
    assert text == world.fleet.text
    assert ended.chat.message_count == chat.message_count + 4


async def _die_at(
    monkeypatch: pytest.MonkeyPatch, replica: Replica, write: str, asked: Completion
) -> None:
    """Run a turn on a replica that dies at a write of that name."""
    original = replica.death.write

    async def dying(name: str, call: Callable[[], Any]) -> Any:
        if name == write:
            replica.death.dead = True
        return await original(name, call)

    monkeypatch.setattr(replica.death, "write", dying)
    await replica.start(asked)
    await replica.quiet()


@pytest.mark.parametrize("where", ["new", "existing"])
async def test_a_context_that_cannot_fit_is_refused_and_nothing_is_stored(
    world: World, where: str
) -> None:
    replica = world.replica()
    first = asking()
    await replica.complete(first)
    asked = asking("word " * 600, max_tokens=500, chat=None if where == "new" else first.chat_id)
    with pytest.raises(ServiceError) as refused:
        await replica.start(asked)
    assert refused.value.code == "context_too_long"
    assert refused.value.metadata["context_length"] == "1000"
    assert await world.store.get_run(ALICE, asked.run_id) is None
    if where == "new":
        assert await world.store.get_chat(ALICE, asked.chat_id) is None
    else:
        assert (await world.chat(first.chat_id)).message_count == 2


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (lambda world: world.fleet.served.clear(), "engine_unavailable"),
        (lambda world: world.saturate(), "overloaded"),
        (lambda world: world.fleet.served.update(sim=None), "model_not_found"),
    ],
    ids=["no engine", "full engines and queue", "no such model"],
)
async def test_what_cannot_be_answered_is_refused_and_nothing_is_stored(
    world: World, prepare: Callable[[World], None], code: str
) -> None:
    replica = world.replica()
    prepare(world)
    asked = asking()
    with pytest.raises(ServiceError) as refused:
        await replica.start(asked)
    assert refused.value.code == code
    assert await world.store.get_chat(ALICE, asked.chat_id) is None
    assert len(replica.session.live_runs) == 0


async def test_a_replica_makes_no_more_answers_than_it_may(world: World) -> None:
    replica = world.replica(max_live_runs=2)
    world.fleet.hold_at = 1
    accepted = [await replica.start(asking()) for _ in range(2)]
    third = await replica.start(asking())
    assert third.live is None
    await until(lambda: len(world.fleet.draws) == 2)
    assert not await replica.session.dispatcher.dispatch()
    world.fleet.release.set()
    for one in accepted:
        await replica.read(one.run.id, live=one.live)
    await replica.quiet()
    await replica.dispatch()
    await replica.read(third.run.id)


async def test_an_unknown_chat_and_one_of_somebody_else_are_not_found(world: World) -> None:
    replica = world.replica()
    asked = asking()
    await replica.complete(asked)
    for chat, principal in ((asking().chat_id, ALICE), (asked.chat_id, BOB)):
        with pytest.raises(ServiceError) as refused:
            await replica.start(asking("Hi", chat=chat), principal)
        assert refused.value.code == "not_found"
    with pytest.raises(ServiceError) as refused:
        await replica.start(asking("Hi", chat=asked.chat_id, new=NewChat("", "", "", 0)), BOB)
    assert refused.value.code == "not_found"
    assert (await world.chat(asked.chat_id)).message_count == 2


async def test_an_expired_chat_is_not_found(world: World) -> None:
    replica = world.replica()
    asked = asking(new=NewChat("", "", "", 60))
    await replica.complete(asked)
    world.time.advance(61)
    with pytest.raises(ServiceError) as refused:
        await replica.start(asking("Hi", chat=asked.chat_id))
    assert refused.value.code == "not_found"


async def test_a_store_that_is_away_refuses_new_turns(world: World) -> None:
    replica = world.replica()
    world.store.away = True
    with pytest.raises(StoreUnavailable):
        await replica.start(asking())


async def test_a_run_is_made_although_its_caller_left_while_it_was_inserted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = world.replica()
    asked = asking()
    insert_run, inserting, go_on = world.store.insert_run, asyncio.Event(), asyncio.Event()

    async def slowly(run: Run) -> bool:
        inserted = await insert_run(run)
        inserting.set()
        await go_on.wait()
        return inserted

    monkeypatch.setattr(world.store, "insert_run", slowly)
    caller = asyncio.create_task(replica.start(asked))
    await inserting.wait()
    caller.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await replica.quiet()
    run = await world.run(asked.run_id)
    assert (run.state, run.attempt, run.content) == (RunState.COMPLETED, 1, world.fleet.text)


async def test_a_run_that_another_has_inserted_as_held_is_left_to_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = world.replica(), world.replica()
    asked = asking()
    insert_chat = world.store.insert_chat

    async def and_a_retry_elsewhere(chat: Chat) -> bool:
        inserted = await insert_chat(chat)
        monkeypatch.setattr(world.store, "insert_chat", insert_chat)
        world.fleet.hold_at = 2
        await other.start(asked)
        await until(lambda: world.fleet.drawing)
        return inserted

    monkeypatch.setattr(world.store, "insert_chat", and_a_retry_elsewhere)
    accepted = await one.start(asked)
    assert accepted.live is None
    world.fleet.release.set()
    text, ended = await one.read(accepted.run.id)
    assert text == world.fleet.text
    assert ended.run.attempt == 1
    assert len(world.fleet.draws) == 1


async def test_a_turn_that_is_met_while_its_run_is_inserted_is_made_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = world.replica()
    asked = asking()
    insert_run = world.store.insert_run

    async def met(run: Run) -> bool:
        inserted = await insert_run(run)
        # As after an older run of the chat that is finished once more.
        acceptance = replica.session.servicer._starter._acceptance
        await acceptance._advancer.advance(await world.chat(asked.chat_id))
        return inserted

    monkeypatch.setattr(world.store, "insert_run", met)
    text, ended = await replica.complete(asked)
    assert (text, ended.run.state) == (world.fleet.text, RunState.COMPLETED)
    assert len(world.fleet.draws) == 1
