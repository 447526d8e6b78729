"""Replicas of two versions over the same stores, as a roll has them: either goes on for the other.

The older session has the newer engine and cache, the newer session the older engine, so that what
one version began is continued by the other's session on the other's engine.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from parley_kit.errors import ServiceError
from parley_session.operate.__main__ import main
from support.inference import ReplicaProcess
from support.poll import until
from support.servers import MongoDatabase
from support.session_process import SessionProcess, session_replica, surroundings
from support.session_service import Client, Stream, to_its_end
from support.versions import Version, source_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(500)]
Replicas = dict[str, tuple[SessionProcess, Client]]
START_SECONDS = 120.0
TOKENS = 80
LONG = "[[sim:slow itl=0.05]] At length"
ENGINE = {
    "PARLEY_INFERENCE_ENGINE": "sim",
    "PARLEY_INFERENCE_SIM_FAULTS": "true",
    "PARLEY_INFERENCE_SIM_ANSWER_TOKENS": "0",
}


@pytest.fixture(name="replicas")
async def _replicas(
    base: Version,
    mongodb_database: MongoDatabase,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Replicas]:
    older_engine = ReplicaProcess(ENGINE | base.environment("inference"), tmp_path / "engine.log")
    async with surroundings(mongodb_database, redis_url) as settings:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        await older_engine.start(START_SECONDS)
        engine = {"PARLEY_SESSION_INFERENCE_TARGETS": f"127.0.0.1:{older_engine.port}"}
        try:
            async with (
                session_replica(settings | base.environment("session"), tmp_path / "old") as older,
                session_replica(settings | engine, tmp_path / "new") as newer,
            ):
                yield {"older": older, "newer": newer}
        finally:
            await older_engine.stop()


@pytest.mark.parametrize("service", ["session", "inference"])
def test_the_older_version_runs_its_own_code(base: Version, service: str) -> None:
    older = source_of(service, {**os.environ, **base.environment(service)})
    assert older.is_relative_to(base.root)
    assert not source_of(service, os.environ).is_relative_to(base.root)


@pytest.mark.parametrize(("first", "second"), [("older", "newer"), ("newer", "older")])
async def test_what_one_version_began_the_other_goes_on_with(
    replicas: Replicas, first: str, second: str
) -> None:
    process, client = replicas[first]
    _, other = replicas[second]
    # A chat, and a key.
    key: dict[str, Any] = {"idempotency_key": "k", "body_digest": hashlib.sha256(b"k").digest()}
    made = await client.complete("Tell me", max_tokens=8, **key)
    assert made.accepted is not None
    replayed = await other.complete("Tell me", max_tokens=8, **key)
    assert replayed.accepted is not None
    assert replayed.accepted.replayed
    assert (replayed.accepted.run_id, replayed.text) == (made.accepted.run_id, made.text)
    more = await other.complete("And then?", chat=made.accepted.chat_id, max_tokens=8)
    assert more.done is not None
    assert more.done.context.messages_included == 3
    again = await client.complete("And now?", chat=made.accepted.chat_id, max_tokens=8)
    assert again.done is not None
    assert again.done.context.messages_included == 5
    # An answer whose replica is killed while it is made.
    begun = Stream()
    reading = asyncio.create_task(client.complete(LONG, max_tokens=TOKENS, into=begun))
    await until(lambda: len(begun.text) > 20, 60, "an answer in progress")
    await process.end(signal.SIGKILL)
    with pytest.raises(ServiceError):
        await reading
    assert begun.accepted is not None
    assert begun.done is None
    whole = await to_its_end(other, begun.accepted.run_id)
    assert whole.done is not None, whole.failed
    assert whole.text == whole.done.message.content
    assert whole.text.startswith(begun.text)
    assert whole.done.usage.completion_tokens == TOKENS
    assert await asyncio.to_thread(main, ["verify", "--settle", "0.1"]) == 0
