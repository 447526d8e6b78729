"""A session replica as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from parley.session.v1 import session_pb2 as pb

from parley_cache.bootstrap import serving as cache_serving
from parley_cache.config import CacheSettings
from parley_kit.errors import ServiceError
from parley_kit.ids import uuid7
from parley_kit.rpc.client import open_channel
from support.inference import sim_replica
from support.poll import until
from support.servers import MongoDatabase
from support.session_service import Client

Settings = dict[str, str]
# However busy the machine.
START_SECONDS = 120.0


class SessionProcess:
    """`python -m parley_session` with settings from `environment`, on free ports."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0
        self.admin_port = 0

    async def start(self) -> None:
        """Start it and wait until it listens."""
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")},
            "PARLEY_SESSION_PORT": "0",
            "PARLEY_SESSION_ADMIN_PORT": "0",
            **self._environment,
        }
        with self._log.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "parley_session", env=environment, stdout=output,
                stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        line = await until(self._serving, START_SECONDS, "a session that listens")
        assert line is not None
        self.port, self.admin_port = line["port"], line["admin_port"]

    def output(self) -> str:
        """What it has said."""
        return self._log.read_text("utf-8", errors="replace")

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; the exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(20):
            return await self._process.wait()

    def _serving(self) -> dict[str, Any] | None:
        assert self._process is not None
        if self._process.returncode is not None:
            raise RuntimeError(f"exited with {self._process.returncode}:\n{self.output()}")
        for line in self.output().splitlines():
            with contextlib.suppress(ValueError):
                found: dict[str, Any] = json.loads(line)
                if found.get("message") == "serving":
                    return found
        return None


@contextlib.asynccontextmanager
async def session_replica(
    environment: dict[str, str], log: Path
) -> AsyncIterator[tuple[SessionProcess, Client]]:
    """A session replica as a process, ready, with a fleet."""
    async with contextlib.AsyncExitStack() as exits:
        process = SessionProcess(environment, log)
        # Also of one that does not come to listen.
        exits.push_async_callback(process.end, signal.SIGKILL)
        await process.start()
        channel = open_channel(f"127.0.0.1:{process.port}")
        exits.push_async_callback(channel.close)
        client = Client(channel)

        async def ready() -> bool:
            with contextlib.suppress(ServiceError):
                return len((await client.call("ListModels", pb.ListModelsRequest())).models) > 0
            return False

        await until(ready, START_SECONDS, "a session with a fleet")
        yield process, client


@contextlib.asynccontextmanager
async def surroundings(database: MongoDatabase, redis_url: str) -> AsyncIterator[Settings]:
    """A replica's settings, among a store, a log, an engine and a cache of its own."""
    own = {"port": 0, "admin_port": 0, "key_prefix": f"test-{uuid7()}:", "semantic": "off"}
    cache = CacheSettings.model_validate(own | {"redis_url": redis_url})
    async with (
        sim_replica(sim_faults=True, sim_answer_tokens=0) as (engine, _),
        cache_serving(cache) as running,
    ):
        yield {
            "PARLEY_SESSION_MONGODB_URI": database.uri,
            "PARLEY_SESSION_MONGODB_DATABASE": database.name,
            "PARLEY_SESSION_LOG_REDIS_URL": redis_url,
            "PARLEY_SESSION_INFERENCE_TARGETS": f"127.0.0.1:{engine.port}",
            "PARLEY_SESSION_CACHE_TARGETS": f"127.0.0.1:{running.port}",
            "PARLEY_SESSION_CACHE_LOOKUP_TIMEOUT_SECONDS": "5",
            "PARLEY_SESSION_LEASE_SECONDS": "0.9",
            "PARLEY_SESSION_SWEEP_SECONDS": "0.2",
        }
