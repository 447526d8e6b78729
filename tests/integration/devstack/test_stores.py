from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pymongo import MongoClient
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from parley_devstack.paths import checkout
from support.servers import MongoDatabase, ValkeyServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@dataclass
class StandIn:
    process: subprocess.Popen[str]
    ready: dict[str, str]

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Exit code and what was written to stderr."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@contextmanager
def stand_in(data: Path, port: int = 0) -> Iterator[StandIn]:
    command = [sys.executable, "-m", "parley_devstack.mongo_server", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--data", str(data), "--jars", str(checkout().jars)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield StandIn(process, json.loads(line) if line else {})
        finally:
            process.kill()


def test_stand_in_keeps_what_was_written_across_a_restart(tmp_path: Path) -> None:
    document: dict[str, object] = {"_id": "one", "text": "Grüße"}
    with stand_in(tmp_path) as first:
        with MongoClient[dict[str, object]](first.ready["uri"]) as client:
            client.parley.things.insert_one(document)
        assert first.end(signal.SIGTERM) == (0, "")
    with stand_in(tmp_path) as second:
        with MongoClient[dict[str, object]](second.ready["uri"]) as client:
            assert client.parley.things.find_one({"_id": "one"}) == document
        assert second.end(signal.SIGINT) == (0, "")


def test_stand_in_refuses_a_file_that_another_has(tmp_path: Path) -> None:
    with stand_in(tmp_path), stand_in(tmp_path) as second:
        code, errors = second.wait()
        assert not second.ready
        assert code == 1
        assert "Another stack may be using it" in errors
        assert "Traceback" not in errors


def test_stand_in_says_in_a_sentence_that_its_port_is_taken(tmp_path: Path) -> None:
    with (
        stand_in(tmp_path / "a") as first,
        stand_in(tmp_path / "b", port=int(first.ready["port"])) as second,
    ):
        code, errors = second.wait()
        assert code == 3
        assert "cannot listen on" in errors
        assert "Traceback" not in errors


def test_concurrent_updates_of_one_document_are_not_lost(mongodb_database: MongoDatabase) -> None:
    with MongoClient[dict[str, object]](mongodb_database.uri) as client:
        things = client[mongodb_database.name].things
        things.insert_one({"_id": "one", "n": 0})

        def increment() -> None:
            for _ in range(100):
                things.update_one({"_id": "one"}, {"$inc": {"n": 1}})

        threads = [threading.Thread(target=increment) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert things.find_one({"_id": "one"}) == {"_id": "one", "n": 800}


def test_shared_valkey_refuses_writes_rather_than_evicting(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_killed_valkey_comes_back_on_its_port(valkey_server: ValkeyServer) -> None:
    port = valkey_server.port
    with Redis.from_url(valkey_server.url, retry=None) as client:
        client.set("key", "value")
        valkey_server.kill()
        with pytest.raises(RedisConnectionError):
            client.ping()
        valkey_server.start()
        assert valkey_server.port == port
        assert client.get("key") is None
