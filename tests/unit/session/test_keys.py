"""The same request under the same key is the same run, whoever is asked and whenever."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from parley_kit.errors import ServiceError
from parley_kit.ids import uuid7
from parley_session.domain.model import Principal, RunState
from parley_session.runs.asking import Completion, NewChat
from parley_session.runs.keys import KEY_LIFE, REAP_AFTER, RequestKey, key_id
from support.poll import until
from support.session_mortal import Death, Killed, deaths
from support.session_world import ALICE, BOB, World, asking, world

DAY = KEY_LIFE.total_seconds()
OWNER = Principal("acme", None)


@pytest.fixture(name="world")
async def _world() -> AsyncIterator[World]:
    async with world() as made:
        yield made


def keyed(
    body: str = "aa", text: str = "k", *, background: bool = False, **given: Any
) -> Completion:
    """A request with new ids, as every one that a gateway sends."""
    return asking(key=RequestKey(text, body, background), **given)


async def refused(world: World, asked: Completion, principal: Principal = ALICE) -> str:
    with pytest.raises(ServiceError) as error:
        await world.replica().start(asked, principal)
    return error.value.code


async def test_a_key_sent_again_replays_the_stored_answer(world: World) -> None:
    first = await world.replica().start(keyed())
    await world.replica().read(first.run.id)
    again = await world.replica().start(keyed())
    assert again.replayed
    assert again.run.id == first.run.id
    text, ended = await world.replica().read(again.run.id)
    assert text == ended.run.content == world.fleet.text
    assert len(world.fleet.draws) == 1
    assert len(await world.messages(first.run.chat)) == 2


async def test_a_key_sent_again_attaches_to_the_running_answer(world: World) -> None:
    world.fleet.hold_at = 3
    maker = world.replica()
    first = await maker.start(keyed())
    await until(lambda: first.live is not None and first.live.length > 0)
    again = await world.replica().start(keyed())
    assert (again.run.id, again.replayed) == (first.run.id, True)
    assert again.run.state is RunState.RUNNING
    reading = asyncio.create_task(world.replica().read(again.run.id))
    world.fleet.release.set()
    assert (await reading)[0] == world.fleet.text
    assert len(world.fleet.draws) == 1


async def test_equal_requests_at_the_same_instant_are_one_run(world: World) -> None:
    replicas = [world.replica() for _ in range(4)]
    accepted = await asyncio.gather(*(replicas[n % 4].start(keyed()) for n in range(12)))
    assert len({one.run.id for one in accepted}) == 1
    assert len({one.run.chat for one in accepted}) == 1
    assert sum(not one.replayed for one in accepted) == 1
    text, _ = await replicas[0].read(accepted[0].run.id)
    assert text == world.fleet.text
    chats = await world.store.list_chats(ALICE, 10, None)
    assert [chat.id for chat in chats] == [accepted[0].run.chat]


async def test_equal_completions_at_the_same_instant_are_one_turn(world: World) -> None:
    _, made = await world.replica().complete(asking())
    replicas = [world.replica() for _ in range(4)]
    accepted = await asyncio.gather(
        *(replicas[n % 4].start(keyed(chat=made.chat.id)) for n in range(12))
    )
    assert len({one.run.id for one in accepted}) == 1
    await replicas[0].read(accepted[0].run.id)
    assert len(await world.messages(made.chat.id)) == 4


async def test_another_body_under_a_key_is_refused(world: World) -> None:
    await world.replica().complete(keyed())
    assert await refused(world, keyed("bb")) == "idempotency_key_reused"


@pytest.mark.parametrize("principal", [BOB, Principal("other", "alice")], ids=["user", "tenant"])
async def test_a_key_is_its_users_own(world: World, principal: Principal) -> None:
    _, mine = await world.replica().complete(keyed())
    _, theirs = await world.replica().complete(keyed("bb"), principal)
    assert mine.run.id != theirs.run.id


def test_what_looks_alike_when_joined_is_not_the_same_key() -> None:
    names = [("a", "bc", "d"), ("ab", "c", "d"), ("a", "b", "cd"), ("", "abc", "d")]
    assert len({key_id(*name) for name in names}) == len(names)


async def test_who_acts_as_the_owner_uses_the_owners_keys(world: World) -> None:
    _, made = await world.replica().complete(asking())
    first = await world.replica().start(keyed(chat=made.chat.id))
    await world.replica().read(first.run.id)
    again = await world.replica().start(keyed(chat=made.chat.id), OWNER)
    assert (again.run.id, again.replayed) == (first.run.id, True)


async def test_a_refusal_for_what_a_request_is_leaves_no_key(world: World) -> None:
    model = keyed(new=NewChat("", "", "no such model", 0))
    assert await refused(world, model) == "model_not_found"
    long = keyed(message="word " * 2000)
    assert await refused(world, long) == "context_too_long"
    assert await refused(world, keyed(chat=uuid7())) == "not_found"
    _, ended = await world.replica().complete(keyed("bb"))
    assert ended.run.content == world.fleet.text


async def test_a_request_refused_as_busy_may_be_sent_again_under_its_key(world: World) -> None:
    world.fleet.hold_at = 2
    replica = world.replica()
    first = await replica.start(asking())
    assert await refused(world, keyed(chat=first.run.chat)) == "run_in_progress"
    world.fleet.release.set()
    await replica.read(first.run.id)
    accepted = await world.replica().start(keyed(chat=first.run.chat))
    assert not accepted.replayed
    world.saturate()
    assert await refused(world, keyed("bb", "other")) == "overloaded"
    world.fleet.full = False
    assert not (await world.replica().start(keyed("bb", "other"))).replayed


@pytest.mark.parametrize("done", [False, True], ids=["running", "done"])
async def test_a_request_that_meets_its_own_twin_replays_it(world: World, done: bool) -> None:
    _, made = await world.replica().complete(asking())
    world.fleet.hold_at = 2
    twin, late = keyed(chat=made.chat.id), keyed(chat=made.chat.id)
    get_key, accepting = world.store.get_key, world.replica()
    looks = 0

    async def overtaken(key: str) -> object:
        # The twin is accepted between the late one's first look and its own acceptance.
        nonlocal looks
        looks += 1
        found = await get_key(key)
        if looks == 1:
            accepted = await accepting.start(twin)
            if done:
                world.fleet.release.set()
                await accepting.read(accepted.run.id)
        return found

    world.store.get_key = overtaken  # type: ignore[method-assign,assignment]
    accepted = await world.replica().start(late)
    assert (accepted.run.id, accepted.replayed) == (twin.run_id, True)
    world.fleet.release.set()
    text, _ = await world.replica().read(accepted.run.id)
    assert text == world.fleet.text
    assert len(await world.messages(made.chat.id)) == 4


async def test_a_chat_that_is_busy_with_something_else_refuses_under_any_key(
    world: World,
) -> None:
    _, made = await world.replica().complete(asking())
    world.fleet.hold_at = 2
    await world.replica().start(keyed(chat=made.chat.id))
    assert await refused(world, keyed(chat=made.chat.id, text="other")) == "run_in_progress"
    world.fleet.release.set()


async def test_what_was_accepted_is_replayed_though_the_fleet_is_full_or_gone(
    world: World,
) -> None:
    asked = keyed()
    first = await world.replica().start(asked)
    await world.replica().read(first.run.id)
    world.fleet.full = True
    assert (await world.replica().start(keyed())).run.id == first.run.id
    world.fleet.served.clear()
    assert (await world.replica().start(keyed())).run.id == first.run.id
    # The gateway's own second try has the first one's ids, and no answer of it.
    second = await world.replica().start(asked)
    assert (second.run.id, second.repeated, second.replayed) == (first.run.id, True, False)
    without_key = asking(chat=first.run.chat, run=first.run.id, new=NewChat("", "", "", 0))
    assert (await world.replica().start(without_key)).run.id == first.run.id


async def test_a_failed_run_is_replayed_as_failed(world: World) -> None:
    world.fleet.hold_at = 2
    world.fleet.failure = ServiceError(grpc.StatusCode.ABORTED, "engine_lost", "gone")
    world.fleet.release.set()
    _, failed = await world.replica().complete(keyed())
    assert failed.run.error is not None
    world.fleet.failure = None
    again = await world.replica().start(keyed())
    _, ended = await world.replica().read(again.run.id)
    assert ended.run.error == failed.run.error
    assert len(world.fleet.draws) == 1


async def test_a_key_of_a_deleted_chat_finds_nothing(world: World) -> None:
    _, made = await world.replica().complete(keyed())
    assert await world.replica().delete(made.chat.id)
    assert await refused(world, keyed()) == "not_found"
    assert len(world.fleet.draws) == 1


async def test_the_first_request_for_the_background_is_remembered(world: World) -> None:
    first = await world.replica().start(keyed(background=True))
    assert not first.background
    again = await world.replica().start(keyed())
    assert (again.replayed, again.background) == (True, True)


async def test_a_key_is_forgotten_after_a_day(world: World) -> None:
    _, first = await world.replica().complete(keyed())
    world.time.advance(DAY - 1)
    assert (await world.replica().start(keyed())).run.id == first.run.id
    world.time.advance(1)
    replicas = [world.replica() for _ in range(8)]
    accepted = await asyncio.gather(*(one.start(keyed("bb")) for one in replicas))
    assert len({one.run.id for one in accepted}) == 1
    assert accepted[0].run.id != first.run.id
    await replicas[0].read(accepted[0].run.id)
    assert await refused(world, keyed()) == "idempotency_key_reused"


async def test_expired_keys_are_reaped_and_others_stay(world: World) -> None:
    await world.replica().complete(keyed())
    world.time.advance(60)
    await world.replica().complete(keyed(text="later"))
    world.time.advance(DAY + REAP_AFTER.total_seconds() - 30)
    await world.replica().sweep()
    assert await world.store.get_key(key_id("acme", "alice", "k")) is None
    assert await world.store.get_key(key_id("acme", "alice", "later")) is not None


async def test_an_empty_chat_is_made_once_under_its_key(world: World) -> None:
    key = RequestKey("k", "aa")

    async def create(key: RequestKey = key) -> tuple[str, bool]:
        chats = world.replica().session.servicer._chats
        chat, replayed = await chats.create(ALICE, uuid7(), NewChat("t", "", "", 0), key)
        return chat.id, replayed

    made = await asyncio.gather(*(create() for _ in range(8)))
    assert len({chat for chat, _ in made}) == 1
    assert sum(not replayed for _, replayed in made) == 1
    with pytest.raises(ServiceError) as error:
        await create(RequestKey("k", "bb"))
    assert error.value.code == "idempotency_key_reused"
    await world.replica().delete(made[0][0])
    with pytest.raises(ServiceError) as error:
        await create()
    assert error.value.code == "not_found"


@pytest.mark.parametrize("existing", [False, True], ids=["new chat", "existing chat"])
async def test_a_replica_that_dies_at_any_write_leaves_the_retry_one_run(existing: bool) -> None:
    async def play(damaged: World, death: Death) -> str | None:
        chat = None
        if existing:
            _, made = await damaged.replica().complete(asking())
            chat = made.chat.id
        try:
            accepted = await damaged.replica(death).start(keyed(chat=chat))
            if accepted.live is not None:
                await accepted.live.closed()
        except (Killed, ServiceError):
            return chat
        return chat

    async with world() as undisturbed:
        counting = Death()
        await play(undisturbed, counting)
    assert "insert_key" in counting.writes
    for where, death in deaths(counting.writes):
        async with world() as damaged:
            chat = await play(damaged, death)
            other = damaged.replica()
            retries = [await other.start(keyed(chat=chat)) for _ in range(2)]
            await damaged.repair(other)
            assert len({one.run.id for one in retries}) == 1, where
            text, _ = await other.read(retries[0].run.id)
            assert text == damaged.fleet.text, where
            questions = await damaged.messages(retries[0].run.chat)
            assert len(questions) == (4 if existing else 2), where
            assert len(await damaged.store.list_chats(ALICE, 10, None)) == 1, where
