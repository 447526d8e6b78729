"""A MongoDB that is away, stuck or back again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from parley_session.store.base import Store, StoreUnavailable
from parley_session.store.mongo.client import MongoOptions
from parley_session.store.mongo.store import MongoStore
from support.poll import until
from support.servers import MongoServer, running
from support.session_data import ALICE, make_chat, make_run
from support.session_stores import OPENERS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
# More than the driver takes between two looks for a server (0.5 s).
BOUND = 1.0
CALLERS = 50


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    with running(MongoServer(Path(tmp_path_factory.mktemp("mongodb")))) as started:
        yield started


@pytest.fixture(params=OPENERS)
async def store(request: pytest.FixtureRequest, server: MongoServer) -> AsyncIterator[MongoStore]:
    options = MongoOptions(server.uri, operation_seconds=BOUND, connect_seconds=BOUND)
    opened = MongoStore(options, opener=OPENERS[request.param])
    await answering(opened)
    yield opened
    await opened.close()


async def answers(store: Store) -> bool:
    try:
        await store.ping()
    except StoreUnavailable:
        return False
    return True


async def answering(store: Store) -> None:
    """Waits until the store answers."""
    await until(partial(answers, store), what="the store answers")


def unavailable(operation: str) -> float:
    labels = {"operation": operation, "outcome": "unavailable"}
    return REGISTRY.get_sample_value("parley_session_store_seconds_count", labels) or 0.0


async def test_a_server_that_is_stuck_is_unavailable_to_every_caller_and_then_back(
    store: MongoStore, server: MongoServer
) -> None:
    chat, before = make_chat(), unavailable("get_chat")
    await store.insert_chat(chat)
    server.pause()
    try:
        async with asyncio.timeout(5):
            results = await asyncio.gather(
                *(store.get_chat(ALICE, chat.id) for _ in range(CALLERS)), return_exceptions=True
            )
            with pytest.raises(StoreUnavailable):
                await store.insert_run(make_run())
    finally:
        server.resume()
    assert [type(result) for result in results] == [StoreUnavailable] * CALLERS
    assert unavailable("get_chat") - before == CALLERS
    await answering(store)
    assert await store.get_chat(ALICE, chat.id) == chat


async def test_a_server_that_was_stopped_is_unavailable_and_keeps_what_it_had(
    store: MongoStore, server: MongoServer
) -> None:
    chat = make_chat()
    await store.insert_chat(chat)
    await asyncio.to_thread(server.stop)
    try:
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailable):
                await store.get_chat(ALICE, chat.id)
            with pytest.raises(StoreUnavailable):
                await store.prepare()
    finally:
        await asyncio.to_thread(server.start)
    await answering(store)
    assert await store.get_chat(ALICE, chat.id) == chat


async def test_what_is_said_of_a_failure_holds_no_text(
    store: MongoStore, server: MongoServer
) -> None:
    server.pause()
    try:
        with pytest.raises(StoreUnavailable) as failure:
            await store.insert_chat(make_chat(title="a secret", system="a secret"))
    finally:
        server.resume()
    assert "insert_chat" in str(failure.value)
    assert "secret" not in str(failure.value)


async def test_operations_beyond_the_bound_are_refused_at_once(server: MongoServer) -> None:
    options = MongoOptions(server.uri, operation_seconds=BOUND, max_in_flight=3)
    store = MongoStore(options)
    try:
        await answering(store)
        server.pause()
        held = [asyncio.create_task(store.ping()) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="too many"):
            await store.ping()
        server.resume()
        await asyncio.gather(*held, return_exceptions=True)
        await answering(store)
    finally:
        server.resume()
        await store.close()


async def test_a_caller_that_leaves_is_not_told_of_the_store(
    store: MongoStore, server: MongoServer
) -> None:
    server.pause()
    try:
        task = asyncio.create_task(store.get_chat(ALICE, "any"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        server.resume()
    await answering(store)
