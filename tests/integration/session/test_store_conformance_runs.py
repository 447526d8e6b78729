"""What every `Store` does with messages, runs and invalidations."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from parley_session.domain.model import (
    CacheInfo,
    CacheStatus,
    FinishReason,
    Message,
    Outcome,
    Problem,
    Rating,
    Role,
    Run,
    RunState,
    message_id,
)
from parley_session.store.base import MAX_MESSAGES_READ, Beat, Store
from support.session_data import (
    ALICE,
    PROMPT,
    after,
    make_invalidation,
    make_message,
    make_outcome,
    make_run,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
CALLERS = 24


async def read_message(store: Store, wanted: str) -> Message:
    message = await store.get_message(ALICE, wanted)
    assert message is not None
    return message


async def read_run(store: Store, wanted: str) -> Run:
    run = await store.get_run(ALICE, wanted)
    assert run is not None
    return run


# messages ---------------------------------------------------------------------


async def test_a_message_is_read_as_it_was_inserted_first(store: Store) -> None:
    message = make_message(
        "chat",
        1,
        role=Role.ASSISTANT,
        tokens={"org/model@v1.0$": 3, "": 4},
        finish_reason=FinishReason.LENGTH,
        source="other-1",
    )
    assert await store.insert_message(message)
    assert not await store.insert_message(replace(message, content="another"))
    assert await store.get_message(ALICE, message.id) == message
    assert await store.get_message(ALICE, "chat-9") is None


async def test_messages_are_read_by_their_numbers_oldest_first(store: Store) -> None:
    messages = [make_message("chat", seq) for seq in (0, 1, 2, 3, 10)]
    for message in (*reversed(messages), make_message("chat2", 1)):
        await store.insert_message(message)
    assert await store.get_messages(ALICE, "chat", 1, 10) == messages[1:]
    assert await store.get_messages(ALICE, "chat", 2, 2) == [messages[2]]
    assert await store.get_messages(ALICE, "chat", 3, 2) == []
    assert await store.get_messages(ALICE, "none", 0, 10) == []


async def test_a_read_of_messages_is_bounded(store: Store) -> None:
    assert await store.get_messages(ALICE, "chat", 1, MAX_MESSAGES_READ) == []
    with pytest.raises(ValueError):
        await store.get_messages(ALICE, "chat", 0, MAX_MESSAGES_READ)


async def test_token_counts_are_kept_for_each_tokenizer(store: Store) -> None:
    message = make_message("chat", 0)
    await store.insert_message(message)
    await asyncio.gather(
        *(store.set_tokens(message.id, f"org/model-{n}.0$", n) for n in range(CALLERS))
    )
    await store.set_tokens("chat-9", "any", 1)
    kept = await read_message(store, message.id)
    assert kept.tokens == {f"org/model-{n}.0$": n for n in range(CALLERS)}
    assert await store.get_message(ALICE, "chat-9") is None


async def test_a_rating_flags_and_clears_an_answer(store: Store) -> None:
    question, answer = make_message("chat", 0), make_message("chat", 1, role=Role.ASSISTANT)
    await store.insert_message(question)
    await store.insert_message(answer)
    assert await store.rate_message(ALICE, answer.id, Rating.DOWN)
    assert await read_message(store, answer.id) == replace(answer, rating=Rating.DOWN, flagged=True)
    assert await store.rate_message(ALICE, answer.id, Rating.UP)
    assert await read_message(store, answer.id) == replace(answer, rating=Rating.UP)
    assert not await store.rate_message(ALICE, question.id, Rating.UP), "only answers"
    assert not await store.rate_message(ALICE, "chat-9", Rating.UP)
    assert await read_message(store, question.id) == question


async def test_the_source_of_a_cached_answer_is_flagged_within_its_tenant(store: Store) -> None:
    message = make_message("chat", 1, role=Role.ASSISTANT)
    await store.insert_message(message)
    await store.flag_message("other", message.id)
    assert not (await read_message(store, message.id)).flagged
    await store.flag_message("acme", message.id)
    assert (await read_message(store, message.id)).flagged


async def test_all_messages_of_a_chat_are_deleted_and_no_others(store: Store) -> None:
    for seq in range(5):
        await store.insert_message(make_message("chat", seq))
    other = make_message("chat2", 0)
    await store.insert_message(other)
    for _ in range(2):
        await store.delete_messages("chat", 1200)
    await store.delete_messages("chat", 0)
    assert await store.get_messages(ALICE, "chat", 0, 10) == []
    assert await read_message(store, message_id("chat2", 0)) == other


# runs -------------------------------------------------------------------------


async def test_a_run_is_read_as_it_was_inserted_first(store: Store) -> None:
    run = make_run()
    inserted = await asyncio.gather(*(store.insert_run(run) for _ in range(CALLERS)))
    assert sum(inserted) == 1
    assert await read_run(store, run.id) == run
    assert await store.get_run(ALICE, "other") is None


async def test_of_many_holders_at_once_exactly_one_holds(store: Store) -> None:
    run = make_run()
    await store.insert_run(run)
    held = await asyncio.gather(*(store.hold_run(run.id, 0, f"r{n}") for n in range(CALLERS)))
    (winner,) = [each for each in held if each is not None]
    assert winner == replace(
        run, attempt=1, holder=f"r{held.index(winner)}", state=RunState.RUNNING
    )
    assert await read_run(store, run.id) == winner


async def test_every_write_of_a_holder_that_lost_the_run_is_refused(store: Store) -> None:
    run = make_run()
    await store.insert_run(run)
    await store.hold_run(run.id, 0, "first")
    await store.start_run(run.id, 1, "log", after(1))
    taken = await store.hold_run(run.id, 1, "second")
    assert taken is not None
    assert taken.log == "log"
    assert taken.faults == 0
    assert await store.hold_run(run.id, 1, "third", faults=1) is None
    for attempt in (0, 1, 3):
        assert await store.move_beat(run.id, attempt) is None
        assert not await store.start_run(run.id, attempt, "mine", after(2), PROMPT)
        assert not await store.clear_log(run.id, attempt)
        assert not await store.commit_run(run.id, attempt, make_outcome())
    assert await read_run(store, run.id) == taken


async def test_a_run_that_nobody_holds_takes_no_holders_writes(store: Store) -> None:
    run = make_run()
    await store.insert_run(run)
    assert await store.move_beat(run.id, 0) is None
    assert not await store.start_run(run.id, 0, "log", after(1), PROMPT)
    assert not await store.clear_log(run.id, 0)
    assert await store.hold_run("other", 0, "me") is None
    assert await read_run(store, run.id) == run


async def test_a_beat_moves_and_tells_of_a_cancel(store: Store) -> None:
    run = make_run()
    await store.insert_run(run)
    await store.hold_run(run.id, 0, "me")
    assert await store.move_beat(run.id, 1) == Beat(cancel_requested=False)
    cancelled = await store.request_cancel(ALICE, run.id)
    assert cancelled is not None
    assert cancelled.cancel_requested
    assert await store.move_beat(run.id, 1) == Beat(cancel_requested=True)
    assert (await read_run(store, run.id)).beat == 2


async def test_only_the_holder_hands_its_run_over(store: Store) -> None:
    run = make_run()
    await store.insert_run(run)
    assert not await store.hand_over(run.id, 0)
    await store.hold_run(run.id, 0, "one")
    assert not await store.hand_over(run.id, 2)
    assert (await read_run(store, run.id)).handed_over == 0
    assert await store.hand_over(run.id, 1)
    assert (await read_run(store, run.id)).handed_over == 1
    taken = await store.hold_run(run.id, 1, "two", faults=2)
    assert taken is not None
    assert taken.handed_over < taken.attempt
    assert taken.faults == 2
    assert not await store.hand_over(run.id, 1)


async def test_a_prompt_is_frozen_once(store: Store) -> None:
    run = make_run()
    await store.insert_run(run)
    await store.hold_run(run.id, 0, "me")
    assert await store.start_run(run.id, 1, "run:1", after(1), PROMPT)
    assert await store.start_run(run.id, 1, "run:1", after(1), replace(PROMPT, system="another"))
    assert await store.start_run(run.id, 1, "run:1", after(1))
    assert (await read_run(store, run.id)).prompt == PROMPT


async def test_a_run_may_be_inserted_by_its_holder(store: Store) -> None:
    run = make_run(attempt=1, holder="me", state=RunState.RUNNING)
    assert await store.insert_run(run)
    assert not await store.insert_run(replace(run, holder="another"))
    assert await read_run(store, run.id) == run
    assert await store.hold_run(run.id, 0, "another") is None
    assert await store.move_beat(run.id, 1) == Beat(cancel_requested=False)
    taken = await store.hold_run(run.id, 1, "another")
    assert taken is not None
    assert taken.attempt == 2


async def test_a_run_starts_once_and_may_change_its_log(store: Store) -> None:
    run = make_run()
    await store.insert_run(run)
    await store.hold_run(run.id, 0, "me")
    assert await store.start_run(run.id, 1, "run:1", after(1))
    assert await store.clear_log(run.id, 1)
    assert (await read_run(store, run.id)).log is None
    await store.hold_run(run.id, 1, "taker")
    assert await store.start_run(run.id, 2, "run:2", after(0.5))
    kept = await read_run(store, run.id)
    assert (kept.log, kept.started_at) == ("run:2", after(1))


@pytest.mark.parametrize(
    "outcome",
    [
        make_outcome(cache=CacheInfo(CacheStatus.EXACT, "", 1.0, 3.5), source="other-1"),
        make_outcome(
            state=RunState.FAILED,
            finish_reason=FinishReason.ERROR,
            error=Problem("engine_lost", "the engine went away"),
        ),
        make_outcome(state=RunState.CANCELLED, finish_reason=FinishReason.CANCELLED),
    ],
    ids=lambda outcome: outcome.state.value,
)
async def test_a_run_is_committed_once(store: Store, outcome: Outcome) -> None:
    run = make_run()
    await store.insert_run(run)
    await store.hold_run(run.id, 0, "me")
    committed = await asyncio.gather(
        *(store.commit_run(run.id, 1, replace(outcome, content=str(n))) for n in range(CALLERS))
    )
    assert sum(committed) == 1
    kept = await read_run(store, run.id)
    expected = replace(outcome, content=str(committed.index(True)))
    for name in Outcome.__dataclass_fields__:
        assert getattr(kept, name) == getattr(expected, name)
    assert await store.hold_run(run.id, 1, "me") is None
    assert await store.move_beat(run.id, 1) is None
    assert await store.request_cancel(ALICE, run.id) == kept, "it is answered as it is"


async def test_taking_and_committing_race_with_one_winner(store: Store) -> None:
    for _ in range(8):
        run = make_run()
        await store.insert_run(run)
        await store.hold_run(run.id, 0, "me")
        committed, taken = await asyncio.gather(
            store.commit_run(run.id, 1, make_outcome()), store.hold_run(run.id, 1, "taker")
        )
        assert committed != (taken is not None)


async def test_fenced_runs_name_their_logs_and_refuse_their_holders(store: Store) -> None:
    runs = [make_run() for _ in range(3)]
    for run in runs:
        await store.insert_run(run)
        await store.hold_run(run.id, 0, "me")
    for run in runs[:2]:
        await store.start_run(run.id, 1, f"{run.id}:1", after(1))
    ids = [run.id for run in runs]
    logs = await store.fence_runs([*ids, "other"])
    assert sorted(logs) == sorted(f"{run_id}:1" for run_id in ids[:2])
    for run_id in ids:
        assert not await store.commit_run(run_id, 1, make_outcome())
    assert await store.fence_runs([]) == []


async def test_the_runs_of_a_chat_are_listed_until_they_are_deleted(store: Store) -> None:
    runs = [make_run(chat="chat") for _ in range(3)]
    for run in (*runs, make_run()):
        await store.insert_run(run)
    assert sorted(await store.list_run_ids("chat")) == sorted(run.id for run in runs)
    await store.delete_runs([run.id for run in runs])
    assert await store.list_run_ids("chat") == []


async def test_deleted_runs_are_gone(store: Store) -> None:
    gone, kept = make_run(), make_run()
    await store.insert_run(gone)
    await store.insert_run(kept)
    for _ in range(2):
        await store.delete_runs([gone.id, "other"])
    await store.delete_runs([])
    assert await store.get_run(ALICE, gone.id) is None
    assert await store.get_run(ALICE, kept.id) == kept


# invalidations ----------------------------------------------------------------


async def test_invalidations_wait_oldest_first_until_confirmed(store: Store) -> None:
    first, second, third = (make_invalidation(n) for n in (1, 2, 3))
    second = replace(second, message=f"{second.chat}-1")
    for invalidation in (third, first, second):
        assert await store.insert_invalidation(invalidation)
    assert not await store.insert_invalidation(first)
    assert await store.list_invalidations(10) == [first, second, third]
    assert await store.list_invalidations(2) == [first, second]
    for _ in range(2):
        await store.confirm_invalidation(first.id)
    assert await store.list_invalidations(10) == [second, third]
