"""The operator's command, over a real store, beside a real replica and a real cache."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from parley.session.v1 import session_pb2 as pb
from pymongo import MongoClient

from parley_kit.ids import uuid7
from parley_session.clock import utc_now
from parley_session.domain.model import Role, RunState
from parley_session.operate.__main__ import main
from parley_session.store.mongo.client import MongoOptions
from parley_session.store.mongo.store import MongoStore
from parley_session.usage import usage_of_run
from support.poll import until
from support.servers import MongoDatabase
from support.session_data import ALICE, make_chat, make_message, make_run, make_turn
from support.session_process import SessionProcess, Settings, session_replica, surroundings
from support.session_service import Client, Stream, completion

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
async def settings(
    mongodb_database: MongoDatabase, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Settings]:
    """A replica's settings, which the command takes."""
    async with surroundings(mongodb_database, redis_url) as found:
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
async def replica(
    settings: Settings, tmp_path: Path
) -> AsyncIterator[tuple[SessionProcess, Client]]:
    """A session replica, ready, with a fleet."""
    async with session_replica(settings, tmp_path / "session.log") as made:
        yield made


Operate = Callable[..., Any]


@pytest.fixture
def operate(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Operate:
    """Runs the command; its exit code, and what it said."""

    async def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = await asyncio.to_thread(main, arguments)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


async def test_a_store_in_use_is_found_in_order(
    replica: tuple[SessionProcess, Client], operate: Operate
) -> None:
    _, client = replica
    chat = uuid7()
    await client.complete("Tell me", chat=None, max_tokens=8)
    kept = await client.complete("Tell me more", max_tokens=8)
    await client.complete("And then?", chat=kept.acceptance.chat_id, max_tokens=8)
    gone = await client.complete("Forget this", max_tokens=8)
    await client.call("DeleteChat", pb.DeleteChatRequest(chat_id=gone.acceptance.chat_id))
    await client.call("CreateChat", pb.CreateChatRequest(chat_id=chat))
    stream = Stream()
    request = completion("[[sim:slow itl=0.05]] At length", max_tokens=60)
    going_on = asyncio.create_task(client._read(client.stub.Complete, request, stream))
    await until(lambda: len(stream.text) > 5)
    code, said = await operate("verify", "--settle", "0.1")
    assert (code, said) == (
        0, "4 chats, 1 deleted ones, 7 messages, 4 runs: 0 findings\n"
    )  # fmt: skip
    code, said = await operate("verify", "--tenant", "nobody")
    assert (code, said) == (0, "0 chats, 0 deleted ones: 0 findings\n")
    await going_on


def _drop_message(db: Any, chat: str) -> None:
    db.messages.delete_one({"_id": f"{chat}-1"})


def _drop_run(db: Any, chat: str) -> None:
    db.runs.delete_one({"chat": chat})


def _drop_usage(db: Any, chat: str) -> None:
    db.usage.delete_one({"_id": db.runs.find_one({"chat": chat})["_id"]})


def _drop_chat(db: Any, chat: str) -> None:
    db.chats.delete_one({"_id": chat})


def _miscount(db: Any, chat: str) -> None:
    db.chats.update_one({"_id": chat}, {"$set": {"messageCount": 7}})


def _skip(db: Any, chat: str) -> None:
    db.chats.update_one({"_id": chat}, {"$set": {"nextSeq": 4, "messageCount": 4}})


def _swap_role(db: Any, chat: str) -> None:
    db.messages.update_one({"_id": f"{chat}-0"}, {"$set": {"role": "assistant"}})


def _change_answer(db: Any, chat: str) -> None:
    db.messages.update_one({"_id": f"{chat}-1"}, {"$set": {"content": "other"}})


def _revive(db: Any, chat: str) -> None:
    db.runs.update_one({"chat": chat}, {"$set": {"state": "running", "final": False}})


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (_drop_message, {"message_missing"}),
        (_drop_run, {"run_missing"}),
        (_drop_usage, {"run_without_usage"}),
        (_drop_chat, {"messages_without_a_chat", "runs_without_a_chat"}),
        (_miscount, {"wrong_message_count"}),
        (_skip, {"message_missing", "run_missing"}),
        (_swap_role, {"message_of_wrong_role"}),
        (_change_answer, {"answer_is_not_the_runs"}),
        (_revive, {"run_without_a_turn"}),
    ],
)
async def test_what_must_not_be_is_found(
    mongodb_database: MongoDatabase,
    settings: Settings,
    operate: Operate,
    plant: Any,
    words: set[str],
) -> None:
    chat = await _settled_chat(mongodb_database)
    client: MongoClient[dict[str, Any]]
    with MongoClient(mongodb_database.uri) as client:
        await asyncio.to_thread(plant, client[mongodb_database.name], chat)
    code, said = await operate("verify", "--settle", "0")
    assert code == 1
    lines = said.splitlines()
    assert {line.split("  ")[0] for line in lines[:-1]} == words
    assert all(f"chat {chat}" in line for line in lines[:-1])


async def _settled_chat(database: MongoDatabase) -> str:
    """A chat with one turn that was answered, as the store then has it."""
    store = MongoStore(MongoOptions(database.uri, database.name))
    chat = make_chat(next_seq=2, message_count=2)
    run = make_run(chat=chat.id, state=RunState.COMPLETED, attempt=1, content="the answer")
    assert await store.insert_chat(chat)
    assert await store.insert_run(run)
    assert await store.insert_message(make_message(chat.id, 0, run=run.id))
    answer = make_message(chat.id, 1, role=Role.ASSISTANT, run=run.id, content="the answer")
    assert await store.insert_message(answer)
    assert await store.insert_usage(usage_of_run(run))
    await store.close()
    return chat.id


async def test_a_poisoned_run_is_listed_and_its_question_asked_again(
    mongodb_database: MongoDatabase, replica: tuple[SessionProcess, Client], operate: Operate
) -> None:
    _, client = replica
    store = MongoStore(MongoOptions(mongodb_database.uri, mongodb_database.name))
    answered = await client.complete("Tell me", max_tokens=8)
    assert answered.accepted is not None
    before = await store.get_run(ALICE, answered.accepted.run_id)
    assert before is not None
    turn = make_turn(0, accepted_at=utc_now(), message="Tell me", request=before.request)
    chat = make_chat(next_seq=2, pending=(turn,), model=before.request.model)
    # Two replicas were lost while they made it, and so is the third, who holds it now.
    run = make_run(
        id=turn.run, chat=chat.id, request=turn.request, state=RunState.RUNNING, attempt=3,
        holder="lost", faults=2, created_at=utc_now(), deadline=utc_now().replace(year=2100),
    )  # fmt: skip
    assert await store.insert_chat(chat)
    assert await store.insert_message(make_message(chat.id, 0, run=run.id, content="Tell me"))
    assert await store.insert_run(run)

    async def listed() -> str:
        code, said = await operate("poisoned")
        return said if code == 0 and run.id in said else ""

    said = await until(listed, 20, "a run that is poisoned")
    assert said.splitlines()[-1] == "1 poisoned runs"
    assert "3 replicas lost" in said
    assert "Tell me" not in said

    async def settled(turns: int) -> bool:
        found = await store.get_chat(ALICE, chat.id)
        return found is not None and not found.pending and found.message_count == 2 * turns

    await until(lambda: settled(1), 20, "the poisoned turn to be settled")
    code, said = await operate("put-back", run.id)
    assert code == 0, said
    await until(lambda: settled(2), 20, "the question to be answered")
    messages = await store.get_messages(ALICE, chat.id, 0, 3)
    assert [m.content for m in messages[::2]] == ["Tell me", "Tell me"]
    again = await store.get_run(ALICE, messages[3].run)
    assert again is not None
    assert again.error is None
    assert messages[3].content == again.content != ""
    assert (await operate("verify", "--settle", "0.1"))[0] == 0
    code, said = await operate("put-back", run.id, "no-such-run")
    assert code == 1
    assert said.splitlines() == [
        f"{run.id}: its chat went on: the question would come out of order",
        "no-such-run: there is no such run",
    ]
    await store.close()


async def test_cached_answers_are_counted_before_they_are_removed(
    replica: tuple[SessionProcess, Client], operate: Operate
) -> None:
    _, client = replica
    stream = await client.complete(
        "[[sim:length tokens=12]] Which sea is the deepest?", max_tokens=400, temperature=0.0
    )
    assert stream.done is not None

    async def counted() -> str:
        code, said = await operate("purge", "--tenant", "acme")
        return said if code == 0 and said[0] != "0" else ""

    said = await until(counted, 20, "an answer in the cache")
    assert said == "1 cached answers would be removed: say --yes to remove them\n"
    assert (await operate("purge", "--tenant", "other", "--yes"))[1].startswith("0 ")
    assert (await operate("purge", "--tenant", "acme", "--user", "bob", "--yes"))[1][0] == "0"
    assert (await operate("purge", "--tenant", "acme", "--yes")) == (
        0, "1 cached answers removed\n"
    )  # fmt: skip
    assert (await operate("purge", "--tenant", "acme"))[1].startswith("0 ")


async def test_a_drained_replica_ends_its_answers_first(
    replica: tuple[SessionProcess, Client], settings: Settings
) -> None:
    process, client = replica
    stream = Stream()
    request = completion("[[sim:slow itl=0.02]] Tell me", max_tokens=60)
    reading = asyncio.create_task(client._read(client.stub.Complete, request, stream))
    await until(lambda: len(stream.text) > 20)
    assert process._process is not None
    drained = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "parley_session.operate", "drain",
        "--pid", str(process._process.pid), "--seconds", "40",
        env=os.environ | settings, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        said, _ = await drained.communicate()
        await reading
    assert drained.returncode == 0, said
    assert said.decode().endswith("has ended\n")
    assert stream.done is not None
    assert stream.done.message.content == stream.text


async def test_what_cannot_be_done_is_told(
    operate: Operate, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = await operate("drain", "--pid", "4194304")
    assert (code, said) == (1, "process 4194304: No such process\n")
    monkeypatch.setenv("PARLEY_SESSION_CACHE_TARGETS", "")
    assert (await operate("purge", "--tenant", "acme"))[0] == 2
    monkeypatch.setenv("PARLEY_SESSION_MONGODB_URI", "mongodb://user:hunter2@127.0.0.1:1/")
    monkeypatch.setenv("PARLEY_SESSION_MONGODB_TIMEOUT_SECONDS", "1")
    code, said = await operate("verify")
    assert code == 3
    assert said.startswith("the store is away")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("purge",), "required: --tenant"),
        (("put-back",), "required: run"),
        (("verify", "--settle", "long"), "'long' is no number of seconds"),
        ((), "required: COMMAND"),
    ],
)
def test_wrong_arguments_are_told(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err
