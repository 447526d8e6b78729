"""A replica dies at every single write; what it had promised still comes true.

The writes of an undisturbed replica are the list of places where the next one dies,
before the write is applied and after it. Then another replica sweeps, or the client
asks it again, and the world is judged.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from parley_kit.errors import ServiceError
from parley_session.domain.model import FinishReason, RunState
from parley_session.runs.asking import Accepted, Completion
from support.poll import until
from support.session_mortal import Death, Killed, deaths
from support.session_world import ALICE, Replica, World, asking, world


async def _writes_of(scenario: Callable[[World, Replica], Awaitable[object]]) -> list[str]:
    """Play a scenario undisturbed; the writes it makes."""
    async with world() as undisturbed:
        death = Death()
        await scenario(undisturbed, undisturbed.replica(death))
        return death.writes


async def _complete(world: World, replica: Replica, asked: Completion) -> str | None:
    """Post a message to a replica that may die; the answer, if there was one."""
    with contextlib.suppress(Killed, ServiceError):
        accepted: Accepted = await replica.start(asked)
        if accepted.live is not None:
            await accepted.live.closed()
            await replica.quiet()
            return accepted.live.text
    await replica.quiet()
    return None


async def _judge(world: World, asked: list[Completion]) -> None:
    """Every accepted message is stored once, in order, with an answer; no chat is stuck."""
    for one in asked:
        run = await world.store.get_run(ALICE, one.run_id)
        if run is None:
            continue
        assert run.state.final
        lost = run.error is not None and run.error.code == "log_lost"
        assert run.content == ("" if lost else world.fleet.text)
    chat = await world.store.get_chat(ALICE, asked[0].chat_id)
    if chat is None:
        return
    assert chat.pending == ()
    messages = await world.messages(chat.id)
    assert [m.seq for m in messages] == list(range(chat.next_seq))
    assert chat.message_count == len(messages)
    accepted = [one for one in asked if await world.store.get_run(ALICE, one.run_id)]
    assert [m.content for m in messages[::2]] == [one.message for one in accepted]
    assert [m.run for m in messages] == [run for one in accepted for run in (one.run_id,) * 2]


@pytest.mark.parametrize("repair", ["sweeper", "retry", "early retry"])
async def test_dying_while_a_new_chat_is_answered_loses_nothing(repair: str) -> None:
    asked = asking("One")

    async def scenario(world: World, replica: Replica) -> str | None:
        return await _complete(world, replica, asked)

    writes = await _writes_of(scenario)
    assert {"insert_chat", "insert_run", "create", "start_run", "commit_run"} <= set(writes)
    for where, death in deaths(writes):
        async with world() as damaged:
            await scenario(damaged, damaged.replica(death))
            assert death.dead, where
            other = damaged.replica()
            if repair != "early retry":
                await damaged.repair(other)
            if repair != "sweeper":
                accepted = await other.start(asked)
                await damaged.repair(other)
                text, ended = await other.read(accepted.run.id)
                assert text == ended.run.content, where
            await _judge(damaged, [asked])
            accepted_chat = await damaged.store.get_chat(ALICE, asked.chat_id)
            assert accepted_chat is not None or where == "before insert_chat (1)"


async def test_dying_while_a_second_turn_is_answered_loses_nothing() -> None:
    first = asking("One")
    second = asking("Two", chat=first.chat_id)

    async def scenario(world: World, replica: Replica) -> str | None:
        healthy = world.replica()
        await healthy.complete(first)
        await healthy.quiet()
        return await _complete(world, replica, second)

    writes = await _writes_of(scenario)
    assert "accept_turn" in writes
    for where, death in deaths(writes):
        async with world() as damaged:
            await scenario(damaged, damaged.replica(death))
            assert death.dead, where
            await damaged.repair(damaged.replica())
            await _judge(damaged, [first, second])


async def test_dying_in_mid_answer_goes_on_from_the_last_token() -> None:
    asked = asking("One")
    writes = await _writes_of(lambda world, replica: _complete(world, replica, asked))
    appends = [number for number, name in enumerate(writes, 1) if name == "append"]
    assert len(appends) >= 3
    for at in appends[:-1]:
        async with world() as damaged:
            await _complete(damaged, damaged.replica(Death(at, after=True)), asked)
            await damaged.repair(damaged.replica())
            run = await damaged.run(asked.run_id)
            assert run.state is RunState.COMPLETED
            assert run.content == damaged.fleet.text
            # The second attempt was given the tokens of the first.
            assert len(damaged.fleet.draws) <= 2
            assert run.usage.completion_tokens == len(damaged.fleet.answer)


async def test_a_run_that_had_not_started_is_made_again() -> None:
    asked = asking("One")
    writes = await _writes_of(lambda world, replica: _complete(world, replica, asked))
    at = writes.index("start_run") + 1
    async with world() as damaged:
        await _complete(damaged, damaged.replica(Death(at)), asked)
        left = await damaged.run(asked.run_id)
        assert (left.started_at, left.prompt, left.attempt) == (None, None, 1)
        await damaged.repair(damaged.replica())
        run = await damaged.run(asked.run_id)
        assert run.state is RunState.COMPLETED
        assert run.content == damaged.fleet.text
        assert run.attempt > 1


async def test_a_started_run_goes_on_from_the_frozen_prompt() -> None:
    asked = asking("One")
    writes = await _writes_of(lambda world, replica: _complete(world, replica, asked))
    at = writes.index("start_run") + 1
    async with world() as damaged:
        await _complete(damaged, damaged.replica(Death(at, after=True)), asked)
        frozen = (await damaged.run(asked.run_id)).prompt
        assert frozen is not None
        await damaged.repair(damaged.replica())
        run = await damaged.run(asked.run_id)
        assert run.state is RunState.COMPLETED
        assert run.prompt == frozen
        assert damaged.fleet.draws[-1].request.template_time == frozen.template_time


async def test_a_started_run_whose_log_is_lost_as_well_ends_as_log_lost() -> None:
    asked = asking("One")
    writes = await _writes_of(lambda world, replica: _complete(world, replica, asked))
    at = writes.index("append") + 2
    async with world() as damaged:
        await _complete(damaged, damaged.replica(Death(at)), asked)
        damaged.log.wipe()
        other = damaged.replica()
        await damaged.repair(other)
        text, ended = await other.read(asked.run_id)
        assert text == ""
        assert ended.run.state is RunState.FAILED
        assert ended.run.error is not None
        assert ended.run.error.code == "log_lost"
        assert ended.run.finish_reason is FinishReason.ERROR
        await _judge(damaged, [asked])


async def test_dying_while_a_chat_is_deleted_leaves_nothing_behind() -> None:
    first = asking("One")
    second = asking("Two", chat=first.chat_id)

    async def scenario(world: World, replica: Replica) -> None:
        healthy = world.replica()
        await healthy.complete(first)
        world.fleet.hold_at = 2
        await healthy.start(second)
        await until(lambda: world.fleet.drawing)
        with contextlib.suppress(Killed):
            await replica.delete(first.chat_id)

    writes = await _writes_of(scenario)
    assert writes[0] == "mark_deleted"
    order = [name for name in writes if name != "confirm_invalidation"]
    assert order == [
        "mark_deleted", "fence_runs", "insert_invalidation", "delete_messages", "delete",
        "delete", "delete_runs", "strip_chat",
    ]  # fmt: skip
    for where, death in deaths(writes):
        async with world() as damaged:
            await scenario(damaged, damaged.replica(death))
            damaged.fleet.release.set()
            other = damaged.replica()
            if where == "before mark_deleted (1)":
                assert await other.delete(first.chat_id)
            # The sweeper comes by at certain ages.
            for seconds in (60.5, 540.0):
                damaged.time.advance(seconds)
                await other.sweep()
            for replica in damaged.replicas[:1]:
                await replica.quiet()
            await _judge_deleted(damaged, [first, second], where)


async def _judge_deleted(world: World, asked: list[Completion], where: str) -> None:
    chat = await world.chat(asked[0].chat_id)
    assert chat.deleted_at is not None, where
    assert chat.title == chat.system == "", where
    assert await world.messages(chat.id) == [], where
    assert await world.store.list_run_ids(chat.id) == [], where
    for one in asked:
        assert await world.store.get_run(ALICE, one.run_id) is None, where
    assert world.log._streams == {}, where
    assert world.cache.entries == {}, where
    assert await world.store.list_invalidations(10) == [], where


async def test_an_answer_that_is_finished_while_its_chat_is_deleted_leaves_nothing() -> None:
    asked = asking("One")
    writes = await _writes_of(lambda world, replica: _complete(world, replica, asked))
    steps = [name for name in writes if name not in ("set_tokens", "append")]
    for name in steps[1:]:
        async with world() as busy:
            other = busy.replica()
            replica = busy.replica(_DeletingAt(name, other, asked.chat_id))
            await _complete(busy, replica, asked)
            # What was written after the deletion is swept up.
            for seconds in (60.5, 540.0):
                busy.time.advance(seconds)
                await other.sweep()
            await _judge_deleted(busy, [asked], name)


class _DeletingAt(Death):
    """Somebody deletes the chat just before the first write of a name."""

    def __init__(self, name: str, by: Replica, chat_id: str) -> None:
        super().__init__()
        self._name = name
        self._by = by
        self._chat_id = chat_id
        self._deleted = False

    async def write(self, name: str, call: Callable[[], Any]) -> Any:
        if name == self._name and not self._deleted:
            self._deleted = True
            await self._by.delete(self._chat_id)
        return await super().write(name, call)
