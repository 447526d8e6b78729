"""The session service on real parts: gRPC, engines, cache, MongoDB and the log's server."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from parley.session.v1 import session_pb2 as pb

from parley_cache.bootstrap import serving as serving_cache
from parley_cache.config import CacheSettings
from parley_kit.errors import ServiceError
from parley_kit.ids import uuid7
from parley_session.bootstrap import Running
from support.inference import ReplicaProcess, sim_replica
from support.poll import until
from support.servers import MongoDatabase
from support.session_service import (
    ALICE,
    BOB,
    SECONDS,
    Client,
    Stream,
    completion,
    session_replica,
)

pytestmark = pytest.mark.integration

SLOW = {"sim_ttft": 0.01, "sim_itl": 0.01, "sim_faults": True, "sim_answer_tokens": 0}


@dataclass
class Parts:
    """What a session replica needs, real and running."""

    settings: dict[str, Any]

    @contextlib.asynccontextmanager
    async def session(self, **more: Any) -> AsyncIterator[tuple[Running, Client]]:
        """Start a session replica whose engines are known."""
        async with session_replica(**(self.settings | more)) as (running, client):
            await until(lambda: _lists_models(client), what="a fleet with a model")
            yield running, client


async def _lists_models(client: Client) -> bool:
    listed = await client.call("ListModels", pb.ListModelsRequest())
    return len(listed.models) > 0


@pytest.fixture
async def parts(mongodb_database: MongoDatabase, redis_url: str) -> AsyncIterator[Parts]:
    """An engine, a cache, a database and a log."""
    cache_settings = CacheSettings(
        port=0,
        admin_port=0,
        redis_url=redis_url,  # type: ignore[arg-type]
        key_prefix=f"test:{uuid.uuid4().hex[:8]}",
        shutdown_grace_seconds=1.0,
    )
    async with sim_replica(sim_faults=True) as (engine, _), serving_cache(cache_settings) as cache:
        await until(lambda: cache.server.serving, what="the cache")
        yield Parts(
            {
                "mongodb_uri": mongodb_database.uri,
                "mongodb_database": mongodb_database.name,
                "log_redis_url": redis_url,
                "inference_targets": f"127.0.0.1:{engine.port}",
                "cache_targets": f"127.0.0.1:{cache.port}",
                "cache_lookup_timeout_seconds": 1.0,
                "lease_seconds": 1.0,
                "sweep_seconds": 0.1,
                "housekeeping_seconds": 0.1,
            }
        )


async def test_a_chat_of_two_turns_is_streamed_and_stored(parts: Parts) -> None:
    async with parts.session() as (_, client):
        first = await client.complete("Hello there. Friend.", temperature=0.0)
        chat_id = first.acceptance.chat_id
        second = await client.complete("And now?", chat=chat_id, temperature=0.0)

        assert first.answer.message.content == first.text
        assert second.answer.message.content == second.text
        assert second.answer.context.messages_included == 3
        assert second.answer.usage.prompt_tokens > first.answer.usage.prompt_tokens
        assert second.answer.usage.cached_prompt_tokens > 0
        assert [delta.end_offset for delta in second.deltas][-1] == len(second.text.encode())

        got = await client.call("GetChat", pb.GetChatRequest(chat_id=chat_id, limit=50))
        assert got.chat.title == "Hello there."
        assert got.chat.message_count == 4
        assert got.chat.active_run_id == ""
        assert [m.content for m in got.messages] == [
            "Hello there. Friend.", first.text, "And now?", second.text,
        ]  # fmt: skip
        assert not got.has_more
        page = await client.call(
            "GetChat",
            pb.GetChatRequest(
                chat_id=chat_id, limit=2, before_message_id=got.messages[3].message_id
            ),
        )
        assert [m.message_id for m in page.messages] == [m.message_id for m in got.messages[1:3]]
        assert page.has_more

        run = (await client.call("GetRun", pb.GetRunRequest(run_id=second.answer.run_id))).run
        assert run.state == pb.RUN_STATE_COMPLETED
        assert run.message == second.answer.message
        assert run.cache == second.answer.cache
        assert run.context == second.answer.context


async def test_chats_are_listed_renamed_and_deleted(parts: Parts) -> None:
    async with parts.session() as (_, client):
        made = []
        for title in ("one", "two", "three"):
            chat_id = uuid7()
            request = pb.CreateChatRequest(chat_id=chat_id, chat=pb.NewChat(title=title))
            created = (await client.call("CreateChat", request)).chat
            assert created == (await client.call("CreateChat", request)).chat
            made.append(chat_id)
        first = await client.call("ListChats", pb.ListChatsRequest(limit=2))
        assert [chat.title for chat in first.chats] == ["three", "two"]
        rest = await client.call(
            "ListChats", pb.ListChatsRequest(limit=2, cursor=first.next_cursor)
        )
        assert [chat.title for chat in rest.chats] == ["one"]
        assert rest.next_cursor == ""
        await client.call("UpdateChat", pb.UpdateChatRequest(chat_id=made[0], title="uno"))
        await client.call("DeleteChat", pb.DeleteChatRequest(chat_id=made[1]))
        listed = await client.call("ListChats", pb.ListChatsRequest(limit=100))
        assert {chat.title for chat in listed.chats} == {"three", "uno"}
        other = await client.as_user(BOB).call("ListChats", pb.ListChatsRequest(limit=100))
        assert list(other.chats) == []


NAMESAKE = (("parley-tenant", "other"), ALICE[1])
OWNER_OF_ANOTHER_TENANT = (("parley-tenant", "other"), ("parley-as-owner", "1"))


@pytest.mark.parametrize(
    ("name", "request_of"),
    [
        ("GetChat", lambda chat, _: pb.GetChatRequest(chat_id=chat, limit=1)),
        ("UpdateChat", lambda chat, _: pb.UpdateChatRequest(chat_id=chat, title="mine")),
        ("DeleteChat", lambda chat, _: pb.DeleteChatRequest(chat_id=chat)),
        ("GetRun", lambda _, run: pb.GetRunRequest(run_id=run)),
        ("CancelRun", lambda _, run: pb.CancelRunRequest(run_id=run)),
        (
            "RateMessage",
            lambda chat, _: pb.RateMessageRequest(
                chat_id=chat, message_id=f"{chat}-1", rating=pb.RATING_UP
            ),
        ),
    ],
)
async def test_what_is_somebody_elses_is_not_found(
    parts: Parts, name: str, request_of: Callable[[str, str], Any]
) -> None:
    async with parts.session() as (_, client):
        made = await client.complete("Mine")
        request = request_of(made.acceptance.chat_id, made.acceptance.run_id)
        today = datetime.now(UTC).date()
        days = pb.GetUsageRequest(
            from_day=str(today - timedelta(days=1)), to_day=str(today + timedelta(days=1))
        )
        for who in (BOB, NAMESAKE, OWNER_OF_ANOTHER_TENANT):
            stranger = client.as_user(who)
            with pytest.raises(ServiceError) as refused:
                await stranger.call(name, request)
            assert refused.value.code == "not_found"
            for offset in (0, 2, 1_000_000):
                with pytest.raises(ServiceError) as refused:
                    await stranger.attach(made.acceptance.run_id, offset)
                assert refused.value.code == "not_found"
            if who is not OWNER_OF_ANOTHER_TENANT:
                assert not (await stranger.call("GetUsage", days)).days
        assert (await client.call("GetUsage", days)).days[0].runs == 1
        owner = client.as_user((("parley-tenant", "acme"), ("parley-as-owner", "1")))
        await owner.call(name, request)


async def test_a_call_without_a_principal_is_unauthenticated(parts: Parts) -> None:
    async with parts.session() as (_, client):
        with pytest.raises(ServiceError) as refused:
            await client.as_user(()).call("ListChats", pb.ListChatsRequest(limit=1))
        assert refused.value.status is grpc.StatusCode.UNAUTHENTICATED


async def test_a_repeated_question_is_an_exact_hit_until_its_source_is_gone(parts: Parts) -> None:
    async with parts.session() as (_, client):
        first = await client.complete("Why is the sky blue?")
        assert first.answer.cache.status == pb.CACHE_STATUS_MISS
        second = await client.complete("Why is the sky blue?")
        assert second.answer.cache.status == pb.CACHE_STATUS_EXACT, second.answer.cache
        assert second.text == first.text
        bypass = await client.complete("Why is the sky blue?", cache=pb.CACHE_MODE_BYPASS)
        assert bypass.answer.cache.status == pb.CACHE_STATUS_BYPASS
        other = await client.as_user(BOB).complete("Why is the sky blue?")
        assert other.answer.cache.status == pb.CACHE_STATUS_MISS
        await client.call(
            "RateMessage",
            pb.RateMessageRequest(
                chat_id=second.acceptance.chat_id,
                message_id=second.acceptance.message_id,
                rating=pb.RATING_DOWN,
            ),
        )
        third = await client.complete("Why is the sky blue?")
        assert third.answer.cache.status == pb.CACHE_STATUS_MISS, third.answer.cache


async def test_a_deleted_chats_answer_is_not_served_from_the_cache(parts: Parts) -> None:
    async with parts.session() as (_, client):
        first = await client.complete("Why is the sea salty?")
        request = pb.DeleteChatRequest(chat_id=first.acceptance.chat_id)
        await client.call("DeleteChat", request)
        again = await client.complete("Why is the sea salty?")
        assert again.answer.cache.status == pb.CACHE_STATUS_MISS, again.answer.cache


async def test_a_caller_that_leaves_does_not_lose_its_answer(parts: Parts) -> None:
    async with parts.session() as (_, client):
        request = completion("[[sim:slow itl=0.01]] Tell me", max_tokens=40)
        call = client.stub.Complete(request, timeout=SECONDS, metadata=client.metadata)
        await call.read()
        call.cancel()
        await _ended(client, request.run_id, pb.RUN_STATE_COMPLETED)


async def test_a_callers_deadline_does_not_end_its_answer(parts: Parts) -> None:
    async with parts.session() as (_, client):
        request = completion("[[sim:slow itl=0.02]] Tell me", max_tokens=40)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            async for _ in client.stub.Complete(request, timeout=0.3, metadata=client.metadata):
                pass
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await _ended(client, request.run_id, pb.RUN_STATE_COMPLETED)


async def _ended(client: Client, run_id: str, state: pb.RunState.ValueType) -> pb.Run:
    async def run() -> pb.Run | None:
        found = (await client.call("GetRun", pb.GetRunRequest(run_id=run_id))).run
        return found if found.HasField("finished_at") else None

    ended = await until(run, what="the run's end")
    assert ended is not None
    assert ended.state == state
    return ended


async def test_cancelling_keeps_what_there_is(parts: Parts) -> None:
    async with parts.session() as (_, client):
        stream = Stream()
        asked = completion("[[sim:slow itl=0.05]] Tell me", max_tokens=400)
        reading = asyncio.create_task(client._read(client.stub.Complete, asked, stream))
        await until(lambda: len(stream.text) > 5)
        run = (
            await client.call("CancelRun", pb.CancelRunRequest(run_id=asked.run_id, wait_seconds=5))
        ).run
        await reading
        assert run.state == pb.RUN_STATE_CANCELLED
        assert stream.answer.message.finish_reason == pb.FINISH_REASON_CANCELLED
        assert stream.answer.message.content == stream.text == run.message.content


async def test_a_run_made_elsewhere_is_read_from_any_position(parts: Parts) -> None:
    async with parts.session() as (_, client), parts.session() as (_, other):
        stream = Stream()
        asked = completion("[[sim:slow itl=0.02]] Tell me", max_tokens=60)
        reading = asyncio.create_task(client._read(client.stub.Complete, asked, stream))
        await until(lambda: len(stream.text) > 5)
        attached = await other.attach(asked.run_id)
        await reading
        assert attached.text == stream.text
        assert attached.done == stream.done
        offset = stream.deltas[2].end_offset
        late = await other.attach(asked.run_id, offset)
        assert late.text == stream.text.encode()[offset:].decode()
        with pytest.raises(ServiceError) as refused:
            await other.attach(asked.run_id, 100_000)
        assert refused.value.code == "bad_event_id"


async def test_a_replica_that_stops_leaves_its_answer_to_another(parts: Parts) -> None:
    async with parts.session() as (_, other):
        stream = Stream()
        asked = completion("[[sim:slow itl=0.02]] Tell me", max_tokens=64)
        async with parts.session(shutdown_grace_seconds=0.0) as (_, client):
            reading = asyncio.create_task(client._read(client.stub.Complete, asked, stream))
            await until(lambda: len(stream.text) > 20)
        await asyncio.wait({reading})
        # The reader comes back with what it has.
        rest = await other.attach(asked.run_id, len(stream.text.encode()))
        ended = await _ended(other, asked.run_id, pb.RUN_STATE_COMPLETED)
        assert stream.text + rest.text == ended.message.content
        assert ended.usage.completion_tokens == 64


async def test_bad_input_is_refused_by_field_and_nothing_is_stored(parts: Parts) -> None:
    async with parts.session() as (_, client):
        with pytest.raises(ServiceError) as refused:
            await client.complete(" ", max_tokens=0)
        assert {item.field for item in refused.value.fields} == {"message", "options.maxTokens"}
        with pytest.raises(ServiceError) as refused:
            await client.complete("hi", new_chat=pb.NewChat(model="no-such"))
        assert refused.value.code == "model_not_found"
        with pytest.raises(ServiceError) as refused:
            await client.complete("word " * 20_000)
        assert refused.value.code == "context_too_long"
        listed = await client.call("ListChats", pb.ListChatsRequest(limit=100))
        assert list(listed.chats) == []


# engines that fail --------------------------------------------------------------


@pytest.mark.parametrize("strike", ["fail after=1", "fail after=15", "kill after=15"])
async def test_an_answer_goes_on_on_another_engine(parts: Parts, strike: str) -> None:
    async with sim_replica(**SLOW) as (one, _), sim_replica(**SLOW) as (two, _):
        targets = f"127.0.0.1:{one.port},127.0.0.1:{two.port}"
        async with parts.session(inference_targets=targets) as (_, client):
            asked = f"[[sim:{strike}]] Tell me"
            stream = await client.complete(asked, max_tokens=40)
            assert stream.done is not None, stream.failed
            assert stream.done.usage.completion_tokens == 40
            assert stream.done.message.content == stream.text


async def test_a_request_that_no_engine_takes_fails_in_the_end(parts: Parts) -> None:
    async with parts.session() as (_, client):
        stream = await client.complete("[[sim:fail after=0]] Tell me")
        assert stream.failure.problem.code in ("engine_lost", "engine_unavailable")
        assert stream.failure.message.content == ""
        again = await client.complete("Tell me", chat=stream.acceptance.chat_id)
        assert again.answer.chat.message_count == 4


async def test_an_engine_process_that_is_killed_is_continued_by_another(
    parts: Parts, tmp_path: Path
) -> None:
    environment = {
        "PARLEY_INFERENCE_ENGINE": "sim",
        "PARLEY_INFERENCE_SIM_TTFT": "0.01",
        "PARLEY_INFERENCE_SIM_ITL": "0.01",
        "PARLEY_INFERENCE_SIM_FAULTS": "true",
        "PARLEY_INFERENCE_SIM_ANSWER_TOKENS": "0",
    }
    engines = [ReplicaProcess(environment, tmp_path / f"{n}.log") for n in range(2)]
    await asyncio.gather(*(engine.start() for engine in engines))
    try:
        targets = ",".join(f"127.0.0.1:{engine.port}" for engine in engines)
        async with parts.session(inference_targets=targets) as (_, client):
            stream = await client.complete("[[sim:die after=15]] Tell me", max_tokens=40)
            assert stream.done is not None, stream.failed
            assert stream.done.usage.completion_tokens == 40
            assert stream.done.message.content == stream.text
    finally:
        await asyncio.gather(*(engine.stop() for engine in engines))


async def test_without_engines_a_turn_is_refused(parts: Parts) -> None:
    settings = parts.settings | {"inference_targets": "127.0.0.1:1"}
    async with session_replica(**settings) as (_, client):
        with pytest.raises(ServiceError) as refused:
            await client.complete("hi")
        assert refused.value.code == "engine_unavailable"
        assert refused.value.retry_after is not None
