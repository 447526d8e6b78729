"""What only the store on MongoDB can get wrong: its indexes, its queries, its write concern."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from parley_devstack.mongo_indexes import LOOKUP_INDEXES
from parley_kit.ids import uuid7
from parley_session.domain.jobs import JobEnd
from parley_session.domain.model import (
    IdempotencyRecord,
    Principal,
    Rating,
    Role,
    Summary,
)
from parley_session.domain.usage import ReportRow, UsageRecord, UserDay
from parley_session.store.base import Backlog, ListCursor, Store
from parley_session.store.documents.chats import chat_to
from parley_session.store.mongo.indexes import SINGLE_DOCUMENT_QUERIES
from parley_session.store.mongo.store import MongoStore
from support.servers import MongoDatabase
from support.session_data import (
    ALICE,
    PROMPT,
    START,
    after,
    make_chat,
    make_invalidation,
    make_message,
    make_outcome,
    make_run,
    make_turn,
)
from support.session_stores import OPENERS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
OpenMongo = Callable[..., Awaitable[MongoStore]]

READS = {"find": "projection", "findAndModify": "fields"}
WRITES = ("insert", "update", "delete", "findAndModify")
# Their queries are by time, or by whom a chat belongs to.
LISTS = {"list_chats", "list_busy_chats", "list_expired_chats", "list_tombstones"}
LISTS |= {"list_invalidations", "list_run_ids", "delete_expired_keys"}
# Or of a user's day.
LISTS |= {"list_unreported", "mark_reporting", "settle_reporting", "list_report"}


class Recorder(CommandListener):
    """Commands as they are sent, by the operation that the test says it is at."""

    def __init__(self) -> None:
        self.operation = ""
        self.commands: list[tuple[str, str, Mapping[str, Any]]] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.commands.append((self.operation, event.command_name, event.command))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


def filters(name: str, command: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    match name:
        case "find":
            return [command["filter"]]
        case "findAndModify":
            return [command["query"]]
        case "update":
            return [each["q"] for each in command["updates"]]
        case "delete":
            return [each["q"] for each in command["deletes"]]
    return []


async def use_everything(store: Store, recorder: Recorder) -> set[str]:
    """Calls every operation, for a named caller and for one that acts as the owner."""
    used: set[str] = set()

    async def call(name: str, *args: Any, **kwargs: Any) -> None:
        recorder.operation = name
        used.add(name)
        await getattr(store, name)(*args, **kwargs)

    await call("prepare")
    await call("ping")
    for principal in (ALICE, Principal("acme", None)):
        chat, turn = make_chat(), make_turn()
        answer = make_message(chat.id, 1, role=Role.ASSISTANT)
        run = make_run(chat=chat.id)
        invalidation = make_invalidation()
        await call("insert_chat", chat)
        await call("get_chat", principal, chat.id)
        await call("accept_turn", principal, chat, turn, 1)
        await call("list_chats", ALICE, 10, ListCursor(after(9), "z"))
        await call("insert_message", answer)
        await call("get_messages", principal, chat.id, 0, 9)
        await call("get_message", principal, answer.id)
        await call("set_tokens", answer.id, "a.b", 3)
        await call("rate_message", principal, answer.id, Rating.UP)
        await call("flag_message", "acme", answer.id)
        await call("insert_run", run)
        await call("get_run", principal, run.id)
        await call("hold_run", run.id, 0, "me")
        await call("move_beat", run.id, 1)
        await call("hand_over", run.id, 1)
        await call("start_run", run.id, 1, "log", START, PROMPT)
        await call("start_run", run.id, 1, "log2", START)
        await call("clear_log", run.id, 1)
        await call("request_cancel", principal, run.id)
        await call("commit_run", run.id, 1, make_outcome())
        await call("request_cancel", principal, run.id)
        await call("settle_turn", chat.id, turn.run, messages=2, title=str, at=START)
        await call("set_title", principal, chat.id, "new")
        await call("set_summary", chat.id, 0, Summary("short", 2, {"t": 3}))
        await call("list_busy_chats", after(9), 10)
        await call("list_expired_chats", after(9), 10)
        await call("mark_deleted", principal, chat.id, START)
        await call("mark_deleted", principal, chat.id, START)
        await call("insert_invalidation", invalidation)
        await call("list_invalidations", 10)
        await call("confirm_invalidation", invalidation.id)
        await call("list_run_ids", chat.id)
        await call("fence_runs", [run.id])
        await call("delete_messages", chat.id, 2)
        await call("delete_runs", [run.id])
        await call("strip_chat", chat.id)
        await call("list_tombstones", START, after(9), 10)
        await call("remove_tombstone", chat.id)
        key = IdempotencyRecord(uuid7(), "ab", chat.id, run.id, False, after(-1))
        await call("insert_key", key)
        await call("get_key", key.id)
        await call("replace_key", key, key)
        await call("delete_expired_keys", START, 10)
        await call("insert_usage", UsageRecord(run.id, "acme", "alice", START.date(), runs=1))
        await call("sum_usage", ALICE, START.date(), START.date())
    whose = UserDay(START.date(), "acme", "alice")
    row = ReportRow(whose.day, whose.tenant, whose.user, "a model", 0, 1, 0, 0, 0)
    await call("list_unreported", after(90_000).date(), 10)
    await call("mark_reporting", whose, "token")
    await call("sum_models", whose)
    await call("raise_report", row)
    await call("settle_reporting", whose, "token")
    await call("list_report", START.date(), START.date(), "acme", row, 10)
    for backlog in Backlog:
        await call("count_backlog", backlog, START, 10)
    for attempt in (0, 1):
        await call("claim_job", "a job", attempt, "me")
    await call("end_job", "a job", 2, JobEnd(START))
    await call("get_job", "a job")
    return used


@pytest.fixture(params=OPENERS)
async def sent(request: pytest.FixtureRequest, open_mongo: OpenMongo) -> Recorder:
    """All commands of all operations."""
    recorder = Recorder()
    used = await use_everything(await open_mongo(request.param, recorder), recorder)
    assert used | {"close"} == {name for name in vars(Store) if not name.startswith("_")}
    return recorder


async def test_every_read_names_its_projection(sent: Recorder) -> None:
    for operation, name, command in sent.commands:
        if name in READS:
            assert command.get(READS[name]), f"{operation}: {name} without a projection"


async def test_queries_for_one_document_have_the_declared_shapes(sent: Recorder) -> None:
    for operation, name, command in sent.commands:
        for query in filters(name, command) if operation not in LISTS else []:
            fields = tuple(query)
            assert fields[0] == "_id", f"{operation}: {fields}"
            shapes = SINGLE_DOCUMENT_QUERIES.get(command[name], ())
            assert len(fields) == 1 or fields in shapes, f"{operation}: {fields}"
            plain = all(not isinstance(value, dict) for value in query.values())
            assert plain or fields == ("_id",), f"{operation}: an operator beside others"


async def test_every_query_for_a_caller_names_the_tenant(sent: Recorder) -> None:
    callers = {
        name
        for name, method in vars(Store).items()
        if "principal" in getattr(method, "__annotations__", {})
    }
    for operation, name, command in sent.commands:
        # Messages are found by id alone, and judged by the tenant and user on the row.
        for query in filters(name, command) if operation in callers - {"get_messages"} else []:
            assert query["tenant"] == "acme", operation


async def test_every_write_is_majority_and_journaled(sent: Recorder) -> None:
    for operation, name, command in sent.commands:
        if name in WRITES:
            concern = command.get("writeConcern")
            assert concern == {"w": "majority", "j": True}, operation


async def test_the_declared_shapes_are_all_in_use(sent: Recorder) -> None:
    used = {
        (command[name], tuple(query))
        for _, name, command in sent.commands
        for query in filters(name, command)
    }
    declared = {(c, shape) for c, shapes in SINGLE_DOCUMENT_QUERIES.items() for shape in shapes}
    assert declared <= used


def test_the_development_stand_in_knows_the_shapes() -> None:
    assert {name: tuple(shapes) for name, shapes in SINGLE_DOCUMENT_QUERIES.items()} == (
        LOOKUP_INDEXES
    )


async def test_many_replicas_prepare_an_empty_database_at_once(open_mongo: OpenMongo) -> None:
    stores = [await open_mongo(kind) for kind in [*OPENERS] * 4]
    await asyncio.gather(*(store.prepare() for store in stores))
    await asyncio.gather(*(store.prepare() for store in stores))
    assert await stores[0].insert_chat(make_chat())


async def test_documents_of_a_later_version_are_read_and_written(
    open_mongo: OpenMongo, mongodb_database: MongoDatabase
) -> None:
    store = await open_mongo()
    chat, turn = make_chat(), make_turn()
    document = chat_to(chat) | {"later": {"a": 1}, "pending": []}
    with MongoClient[dict[str, Any]](mongodb_database.uri) as client:
        chats = client[mongodb_database.name]["chats"]
        await asyncio.to_thread(chats.insert_one, document)
        assert await store.get_chat(ALICE, chat.id) == chat
        assert await store.accept_turn(ALICE, chat, turn, 1)
        assert await store.settle_turn(chat.id, turn.run, messages=2, title=None, at=START)
        kept = await asyncio.to_thread(chats.find_one, {"_id": chat.id}, {"later": 1})
        assert kept is not None
        assert kept["later"] == {"a": 1}


async def test_a_defect_of_ours_is_not_taken_for_a_store_that_is_away(
    open_mongo: OpenMongo, mongodb_database: MongoDatabase
) -> None:
    store = await open_mongo()
    chat = make_chat()
    with MongoClient[dict[str, Any]](mongodb_database.uri) as client:
        broken = chat_to(chat) | {"nextSeq": "no number"}
        await asyncio.to_thread(client[mongodb_database.name]["chats"].insert_one, broken)
    with pytest.raises(OperationFailure):
        await store.accept_turn(ALICE, make_chat(id=chat.id, next_seq="no number"), make_turn(), 1)
