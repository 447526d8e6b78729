"""Session replicas as processes: killed, stopped, and told wrong settings."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from parley.session.v1 import session_pb2 as pb

from support.inference import sim_replica
from support.poll import until
from support.servers import MongoDatabase
from support.session_process import SessionProcess, session_replica
from support.session_service import Stream, completion

pytestmark = pytest.mark.integration


@pytest.fixture
async def environment(
    mongodb_database: MongoDatabase, redis_url: str
) -> AsyncIterator[dict[str, str]]:
    """An engine, a database and a log, as settings."""
    async with sim_replica(sim_faults=True, sim_answer_tokens=0) as (engine, _):
        yield {
            "PARLEY_SESSION_MONGODB_URI": mongodb_database.uri,
            "PARLEY_SESSION_MONGODB_DATABASE": mongodb_database.name,
            "PARLEY_SESSION_LOG_REDIS_URL": redis_url,
            "PARLEY_SESSION_INFERENCE_TARGETS": f"127.0.0.1:{engine.port}",
            "PARLEY_SESSION_LEASE_SECONDS": "0.9",
            "PARLEY_SESSION_SWEEP_SECONDS": "0.2",
            "PARLEY_SESSION_SHUTDOWN_GRACE_SECONDS": "5",
        }


async def test_a_killed_replica_never_leaves_a_chat_stuck(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async with (
        session_replica(environment, tmp_path / "one.log") as (victim, client),
        session_replica(environment, tmp_path / "two.log") as (_, other),
    ):
        streams = [Stream() for _ in range(4)]
        asked = [completion("[[sim:slow itl=0.02]] Tell me", max_tokens=60 + n) for n in range(4)]
        reading = [
            asyncio.create_task(client._read(client.stub.Complete, request, stream))
            for request, stream in zip(asked, streams, strict=True)
        ]
        await until(lambda: all(len(stream.text) > 20 for stream in streams))
        await victim.end(signal.SIGKILL)
        await asyncio.wait(reading)

        async def finish(request: pb.CompleteRequest, stream: Stream) -> None:
            rest = await other.attach(request.run_id, len(stream.text.encode()))
            assert rest.answer.message.content == stream.text + rest.text
            assert rest.answer.usage.completion_tokens == request.options.max_tokens
            assert rest.answer.chat.active_run_id == ""
            assert rest.answer.chat.message_count == 2

        async with asyncio.timeout(15):
            await asyncio.gather(*map(finish, asked, streams))


async def test_a_stopped_replica_lets_its_answers_end_and_exits_with_0(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async with session_replica(environment, tmp_path / "one.log") as (process, client):
        stream = Stream()
        request = completion("[[sim:slow itl=0.02]] Tell me", max_tokens=60)
        reading = asyncio.create_task(client._read(client.stub.Complete, request, stream))
        await until(lambda: len(stream.text) > 20)
        assert await process.end(signal.SIGTERM) == 0
        await reading
        assert stream.answer.message.content == stream.text
        assert "Traceback" not in process.output()


async def _exit_of(environment: dict[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "parley_session",
        env={k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")} | environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(20):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()


async def test_wrong_settings_are_told_in_a_line_each() -> None:
    status, err = await _exit_of(
        {
            "PARLEY_SESSION_MONGODB_URI": "http://secret@host",
            "PARLEY_SESSION_INFERENCE_TARGETS": "nowhere",
            "PARLEY_SESSION_LEASE_SECONDS": "0",
        }
    )
    assert status == 2
    lines = err.strip().splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == [
        "PARLEY_SESSION_INFERENCE_TARGETS",
        "PARLEY_SESSION_LEASE_SECONDS",
        "PARLEY_SESSION_LOG_REDIS_URL",
        "PARLEY_SESSION_MONGODB_URI",
    ]
    assert "secret" not in err


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://user:hunter2@more@host:27017/",
        "mongodb://user:hunter2@host:port/",
        "mongodb://user:hunter2@host/?tls=perhaps",
    ],
)
async def test_a_uri_that_cannot_be_read_is_told_without_its_password(uri: str) -> None:
    status, err = await _exit_of(
        {
            "PARLEY_SESSION_MONGODB_URI": uri,
            "PARLEY_SESSION_LOG_REDIS_URL": "redis://:hunter2@host:port/0",
            "PARLEY_SESSION_INFERENCE_TARGETS": "127.0.0.1:1",
        }
    )
    assert status == 2
    assert "PARLEY_SESSION_MONGODB_URI: is no MongoDB URI" in err
    assert "PARLEY_SESSION_LOG_REDIS_URL: is no Redis URL" in err
    assert "hunter2" not in err
    assert len(err.splitlines()) == 2


async def test_what_is_away_at_the_start_is_waited_for_without_telling_a_password(
    tmp_path: Path,
) -> None:
    process = SessionProcess(
        {
            "PARLEY_SESSION_MONGODB_URI": "mongodb://user:hunter2@127.0.0.1:1/",
            "PARLEY_SESSION_MONGODB_TIMEOUT_SECONDS": "1",
            "PARLEY_SESSION_LOG_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0",
            "PARLEY_SESSION_INFERENCE_TARGETS": "127.0.0.1:1",
            "PARLEY_SESSION_LOG_LEVEL": "debug",
        },
        tmp_path / "away.log",
    )
    await process.start()
    try:
        await until(lambda: "waiting for the store" in process.output(), what="a line that says so")
    finally:
        assert await process.end(signal.SIGTERM) == 0
    assert "hunter2" not in process.output()
    assert "Traceback" not in process.output()


async def test_a_port_in_use_is_told_in_a_sentence(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async with session_replica(environment, tmp_path / "one.log") as (process, _):
        taken = {"PARLEY_SESSION_PORT": str(process.port), "PARLEY_SESSION_ADMIN_PORT": "0"}
        status, err = await _exit_of(environment | taken)
        assert status == 3
        assert f"{process.port}" in err
        assert "Traceback" not in err
