"""Answers that are stopped, left, fenced, late, or made while something is away."""

import asyncio
import contextlib

import grpc
import pytest

from parley_kit.errors import ServiceError
from parley_session.domain.model import CacheMode, CacheStatus, FinishReason, Rating, RunState
from parley_session.runs import writing
from parley_session.runs.asking import Accepted, Completion
from parley_session.runs.live import Ended, Gone, Piece
from parley_session.store.base import StoreUnavailable
from support.poll import until
from support.session_world import ALICE, BOB, LEASE, Replica, World, asking


async def _begun(world: World, replica: Replica, asked: Completion, pieces: int = 2) -> Accepted:
    """Start an answer that stops before a piece; its acceptance, once that is reached."""
    world.fleet.hold_at = pieces
    accepted: Accepted = await replica.start(asked)
    live = accepted.live
    assert live is not None
    await until(lambda: live.length == len("".join(world.fleet.answer[:pieces]).encode()))
    return accepted


async def test_cancelling_keeps_what_there_is(world: World) -> None:
    replica = world.replica()
    accepted = await _begun(world, replica, asking())
    run = await replica.cancel(accepted.run.id)
    assert run.state is RunState.CANCELLED
    assert run.finish_reason is FinishReason.CANCELLED
    assert run.content == "Hello"
    assert run.usage.completion_tokens == 2
    text, ended = await replica.read(accepted.run.id, live=accepted.live)
    assert (text, ended.run.state) == ("Hello", RunState.CANCELLED)
    messages = await world.messages(run.chat)
    assert messages[1].content == "Hello"
    assert messages[1].finish_reason is FinishReason.CANCELLED
    assert world.fleet.drawing == 0
    world.fleet.hold_at = None
    await replica.complete(asking("Next", chat=run.chat))


async def test_cancelling_from_another_replica_is_seen_within_a_beat(world: World) -> None:
    replica, other = world.replica(lease_seconds=0.5), world.replica()
    accepted = await _begun(world, replica, asking())
    run = await other.cancel(accepted.run.id)
    assert run.state is RunState.CANCELLED
    assert run.content == "Hello"


async def test_cancelling_an_ended_run_leaves_it_as_it_is(world: World) -> None:
    replica = world.replica()
    asked = asking()
    await replica.complete(asked)
    run = await replica.cancel(asked.run_id)
    assert run.state is RunState.COMPLETED
    assert run == await world.run(asked.run_id)


async def test_a_run_of_somebody_else_is_not_found(world: World) -> None:
    replica = world.replica()
    asked = asking()
    await replica.complete(asked)
    with pytest.raises(ServiceError) as refused:
        await replica.read(asked.run_id, principal=BOB)
    assert refused.value.code == "not_found"


async def test_a_caller_that_leaves_does_not_lose_its_answer(world: World) -> None:
    replica = world.replica()
    accepted = await _begun(world, replica, asking())
    reading = asyncio.create_task(replica.read(accepted.run.id, live=accepted.live))
    await asyncio.sleep(0)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    world.fleet.release.set()
    await replica.quiet()
    assert (await world.run(accepted.run.id)).content == world.fleet.text
    assert (await world.messages(accepted.run.chat))[1].content == world.fleet.text


async def test_deleting_the_chat_ends_the_answer_and_its_readers(world: World) -> None:
    replica = world.replica()
    accepted = await _begun(world, replica, asking())
    reading = asyncio.create_task(replica.read(accepted.run.id, live=accepted.live))
    assert await replica.delete(accepted.run.chat)
    with pytest.raises(ServiceError) as refused:
        await reading
    assert refused.value.code == "not_found"
    await replica.quiet()
    assert world.fleet.drawing == 0
    assert await world.store.list_run_ids(accepted.run.chat) == []
    assert await world.messages(accepted.run.chat) == []
    world.time.advance(1)
    assert not await replica.delete(accepted.run.chat)


async def test_an_answer_that_is_late_is_kept_as_failed(world: World) -> None:
    replica = world.replica()
    accepted = await _begun(world, replica, asking(timeout_seconds=1))
    _, ended = await replica.read(accepted.run.id, live=accepted.live)
    assert ended.run.state is RunState.FAILED
    assert ended.run.error is not None
    assert ended.run.error.code == "timed_out"
    assert ended.run.content == "Hello"
    assert (await world.messages(accepted.run.chat))[1].finish_reason is FinishReason.ERROR


async def test_an_engine_that_is_lost_fails_the_run_and_keeps_the_text(world: World) -> None:
    replica = world.replica()
    world.fleet.failure = ServiceError(grpc.StatusCode.ABORTED, "engine_lost", "gone")
    accepted = await _begun(world, replica, asking())
    world.fleet.release.set()
    text, ended = await replica.read(accepted.run.id, live=accepted.live)
    assert text == "Hello"
    assert ended.run.error is not None
    assert ended.run.error.code == "engine_lost"
    world.fleet.hold_at = world.fleet.failure = None
    await replica.complete(asking("Again", chat=accepted.run.chat))


async def test_a_defect_ends_the_run_as_internal(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    replica = world.replica()
    world.fleet.failure = ZeroDivisionError("a defect")
    accepted = await _begun(world, replica, asking())
    world.fleet.release.set()
    _, ended = await replica.read(accepted.run.id, live=accepted.live)
    assert ended.run.error is not None
    assert ended.run.error.code == "internal"
    assert "a defect" not in ended.run.error.detail
    assert "an answer failed unexpectedly" in caplog.text


# takeover ---------------------------------------------------------------------


async def test_a_holder_that_beats_is_left_alone(world: World) -> None:
    replica, other = world.replica(), world.replica()
    accepted = await _begun(world, replica, asking())
    for _ in range(4):
        world.time.advance(LEASE)
        run = await world.run(accepted.run.id)
        await world.store.move_beat(run.id, run.attempt)
        await other.sweep()
    assert len(other.session.live_runs) == 0
    assert (await world.run(accepted.run.id)).attempt == 1


async def test_a_store_that_was_away_longer_than_a_lease_takes_nobody_his_run(
    world: World,
) -> None:
    replica, other = world.replica(), world.replica()
    accepted = await _begun(world, replica, asking())
    world.time.advance(LEASE)
    await other.sweep()
    world.store.away = True
    world.time.advance(LEASE)
    with pytest.raises(StoreUnavailable):
        await other.sweep()
    world.store.away = False
    # The holder could not move its beat either; from now on it has a lease to do so.
    await other.sweep()
    assert len(other.session.live_runs) == 0
    world.time.advance(LEASE)
    await other.sweep()
    assert len(other.session.live_runs) == 1
    world.fleet.release.set()
    await other.quiet()
    assert (await world.run(accepted.run.id)).attempt == 2


async def test_a_fenced_holder_stops_and_its_reader_reads_on(world: World) -> None:
    replica, other = world.replica(), world.replica()
    accepted = await _begun(world, replica, asking())
    reading = asyncio.create_task(replica.read(accepted.run.id, live=accepted.live))
    # The holder is paused; the other one takes over and finishes.
    for _ in range(2):
        world.time.advance(LEASE)
        await other.sweep()
    await until(lambda: world.fleet.drawing == 2)
    world.fleet.release.set()
    text, ended = await reading
    assert text == world.fleet.text
    assert ended.run.attempt == 2
    assert (await world.run(accepted.run.id)).content == world.fleet.text
    await replica.quiet()
    assert accepted.live is not None
    assert accepted.live.ending is Gone.MOVED or accepted.live.ending == ended
    assert (await world.chat(accepted.run.chat)).message_count == 2


async def test_a_reader_of_a_run_made_elsewhere_reads_its_log_and_its_end(world: World) -> None:
    replica, other = world.replica(), world.replica()
    accepted = await _begun(world, replica, asking())
    events = other.follow(accepted.run.id, offset=3)
    first = await anext(events)
    assert isinstance(first, Piece)
    assert first.text == "lo"
    world.fleet.release.set()
    *rest, last = [event async for event in events]
    pieces = [event for event in rest if isinstance(event, Piece)]
    assert pieces == rest
    assert "lo" + "".join(piece.text for piece in pieces) == world.fleet.text[3:]
    assert isinstance(last, Ended)
    assert last.run.state is RunState.COMPLETED


@pytest.mark.parametrize("offset", [0, 3, 5, 7, 10])
async def test_a_stored_answer_serves_any_position(world: World, offset: int) -> None:
    replica = world.replica()
    asked = asking()
    await replica.complete(asked)
    await replica.quiet()
    text, _ = await replica.read(asked.run_id, offset)
    assert text == world.fleet.text.encode()[offset:].decode()


@pytest.mark.parametrize("offset", [9, 100])
async def test_a_position_inside_a_character_or_beyond_the_end_is_refused(
    world: World, offset: int
) -> None:
    replica = world.replica()
    asked = asking()
    await replica.complete(asked)
    await replica.quiet()
    with pytest.raises(ServiceError) as refused:
        await replica.read(asked.run_id, offset)
    assert refused.value.code == "bad_event_id"


async def test_a_stopping_replica_leaves_its_answers_to_another(world: World) -> None:
    replica = world.replica()
    accepted = await _begun(world, replica, asking())
    await replica.session.live_runs.drain(0)
    assert accepted.live is not None
    assert accepted.live.ending is Gone.MOVED
    assert not (await world.run(accepted.run.id)).state.final
    world.fleet.release.set()
    other = world.replica()
    await world.repair(other)
    text, _ = await other.read(accepted.run.id)
    assert text == world.fleet.text


async def test_a_stopping_replica_lets_its_answers_end(world: World) -> None:
    replica = world.replica()
    accepted = await _begun(world, replica, asking())
    draining = asyncio.create_task(replica.session.live_runs.drain(5))
    await asyncio.sleep(0)
    with pytest.raises(ServiceError):
        await replica.start(asking())
    world.fleet.release.set()
    await draining
    assert (await world.run(accepted.run.id)).state is RunState.COMPLETED


# something is away --------------------------------------------------------------


async def test_an_answer_is_committed_once_the_store_is_back(world: World) -> None:
    replica = world.replica()
    accepted = await _begun(world, replica, asking())
    world.store.away = True
    world.fleet.release.set()
    live = accepted.live
    assert live is not None
    await until(lambda: live.text == world.fleet.text)
    assert live.ending is None
    world.store.away = False
    _, ended = await replica.read(accepted.run.id, live=accepted.live)
    assert ended.run.content == world.fleet.text


async def test_without_a_log_the_answer_goes_on_and_says_that_it_has_none(world: World) -> None:
    replica = world.replica()
    accepted = await _begun(world, replica, asking())
    assert (await world.run(accepted.run.id)).log is not None
    world.log.away = True
    world.fleet.release.set()
    text, ended = await replica.read(accepted.run.id, live=accepted.live)
    assert text == world.fleet.text
    assert ended.run.log is None
    assert (await world.run(accepted.run.id)).log is None


async def test_a_log_that_was_away_from_the_beginning_is_written_when_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "LOG_RETRY_SECONDS", 0.001)
    replica = world.replica()
    world.log.away = True
    world.fleet.answer += ["."] * 200
    world.fleet.pause = True
    accepted = await _begun(world, replica, asking())
    world.log.away = False
    world.fleet.release.set()
    text, ended = await replica.read(accepted.run.id, live=accepted.live)
    assert text == world.fleet.text
    # The whole text, from byte 0, in a stream of its own under a new attempt.
    if ended.run.log is not None:
        entries = await world.log.read(ended.run.log)
        assert "".join(entry.text for entry in entries) == text
        assert ended.run.attempt == 2


async def test_a_log_that_was_wiped_is_written_anew(world: World) -> None:
    replica = world.replica()
    accepted = await _begun(world, replica, asking())
    world.log.wipe()
    world.fleet.release.set()
    text, ended = await replica.read(accepted.run.id, live=accepted.live)
    assert text == world.fleet.text
    assert ended.run.attempt == 2
    assert ended.run.log is not None
    entries = await world.log.read(ended.run.log)
    assert "".join(entry.text for entry in entries) == text
    assert [t for entry in entries for t in entry.token_ids] == list(range(len(world.fleet.answer)))
    assert entries[-1].last


# the cache --------------------------------------------------------------------


async def test_a_repeated_question_is_served_from_the_cache_and_stored(world: World) -> None:
    replica = world.replica()
    first = asking("Why?")
    await replica.complete(first)
    second = asking("Why?")
    text, ended = await replica.complete(second)
    assert text == world.fleet.text
    assert len(world.fleet.draws) == 1
    assert ended.run.cache is not None
    assert ended.run.cache.status is CacheStatus.EXACT
    assert ended.run.usage.completion_tokens == 6
    answer = (await world.messages(second.chat_id))[1]
    assert answer.source == f"{first.chat_id}-1"
    # What came from the cache does not go there again.
    assert {a.source_chat for a in world.cache.entries.values()} == {first.chat_id}


@pytest.mark.parametrize("how", ["deleted", "rated down", "copy rated down"])
async def test_an_answer_that_was_taken_out_is_not_served_even_if_the_cache_has_it(
    world: World, how: str
) -> None:
    replica = world.replica()
    first, second = asking("Why?"), asking("Why?")
    await replica.complete(first)
    await replica.complete(second)
    kept = dict(world.cache.entries)
    world.cache.away = True
    chats = replica.session.servicer._chats
    if how == "deleted":
        await replica.delete(first.chat_id)
    else:
        chat = first.chat_id if how == "rated down" else second.chat_id
        await chats.rate(ALICE, chat, 1, Rating.DOWN)
    world.cache.away = False
    world.cache.entries = kept
    _, ended = await replica.complete(asking("Why?"))
    assert ended.run.cache is not None
    assert (ended.run.cache.status, ended.run.cache.reason) == (CacheStatus.MISS, "source_gone")
    assert len(world.fleet.draws) == 2
    await replica.sweep()
    assert await world.store.list_invalidations(10) == []


@pytest.mark.parametrize(("mode", "lookups", "stored"), [("bypass", 0, 0), ("refresh", 0, 1)])
async def test_bypass_and_refresh_do_what_they_say(
    world: World, mode: str, lookups: int, stored: int
) -> None:
    replica = world.replica()
    _, ended = await replica.complete(asking("Why?", cache=CacheMode(mode)))
    assert len(world.cache.lookups) == lookups
    assert len(world.cache.entries) == stored
    assert ended.run.cache is not None
    assert ended.run.cache.status is (CacheStatus.BYPASS if mode == "bypass" else CacheStatus.MISS)


async def test_another_context_or_other_options_are_another_question(world: World) -> None:
    replica = world.replica()
    first = asking("Why?")
    await replica.complete(first)
    await replica.complete(asking("Why?", chat=first.chat_id))
    await replica.complete(asking("Why?", temperature=0.1))
    await replica.complete(asking("Why?"), BOB)
    assert len(world.fleet.draws) == 4


async def test_a_cache_that_is_away_is_a_miss(world: World) -> None:
    world.cache.away = True
    text, ended = await world.replica().complete(asking())
    assert text == world.fleet.text
    assert ended.run.cache is not None
    assert ended.run.cache.reason == "unavailable"
