"""The stores and logs that the conformance suites run against, and a word on which ran.

A server that cannot be had is an error of its fixture: nothing here skips.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import pytest
from pymongo import MongoClient
from pymongo.monitoring import CommandListener
from redis import Redis

from parley_session.clock import utc_now
from parley_session.runs.log import LogLimits, RunLog
from parley_session.runs.memory_log import MemoryRunLog
from parley_session.runs.redis_client import RedisLogOptions
from parley_session.runs.redis_log import RedisRunLog
from parley_session.store.base import Store
from parley_session.store.memory.store import MemoryStore
from parley_session.store.mongo.client import MongoOptions, OpenClient, open_motor, open_pymongo
from parley_session.store.mongo.store import MongoStore
from support.servers import MongoDatabase, MongoServer
from support.telling import tell

OPENERS: dict[str, OpenClient] = {"motor": open_motor, "pymongo": open_pymongo}


class SettableTime:
    """A wall clock that tests set."""

    def __init__(self) -> None:
        self.time = utc_now()

    def __call__(self) -> datetime:
        return self.time


@dataclass(frozen=True, slots=True)
class TestedStore:
    """A store, the clock it has, and how to open another replica's on the same data."""

    __test__ = False
    store: Store
    time: SettableTime
    kind: str


@pytest.fixture(params=["memory", *OPENERS])
async def tested(request: pytest.FixtureRequest) -> AsyncIterator[TestedStore]:
    """An empty, prepared store of each kind."""
    kind: str = request.param
    time = SettableTime()
    store: Store
    if kind == "memory":
        store = MemoryStore(now=time)
        tell(request.node, "conformance, store: memory")
    else:
        database: MongoDatabase = request.getfixturevalue("mongodb_database")
        server: MongoServer | None = request.getfixturevalue("mongodb_server")
        store = MongoStore(
            MongoOptions(database.uri, database.name), now=time, opener=OPENERS[kind]
        )
        tell(request.node, f"conformance, store: {kind} on {_mongodb(database.uri, server)}")
    await store.prepare()
    yield TestedStore(store, time, kind)
    await store.close()


@pytest.fixture
def store(tested: TestedStore) -> Store:
    """An empty, prepared store of each kind."""
    return tested.store


@pytest.fixture
async def open_mongo(
    mongodb_database: MongoDatabase,
) -> AsyncIterator[Callable[..., Awaitable[MongoStore]]]:
    """Opens stores on one database: of a kind, with listeners to what is sent."""
    opened: list[MongoStore] = []

    async def open_store(kind: str = "motor", *listeners: CommandListener) -> MongoStore:
        options = MongoOptions(mongodb_database.uri, mongodb_database.name, listeners=listeners)
        opened.append(MongoStore(options, opener=OPENERS[kind]))
        return opened[-1]

    yield open_store
    for store in opened:
        await store.close()


@pytest.fixture(params=["memory", "redis"])
async def run_log(request: pytest.FixtureRequest) -> AsyncIterator[RunLog]:
    """A run log of each kind, with small limits."""
    limits = LogLimits(max_bytes=1000, max_entries=5000, ttl_seconds=60.0)
    log: RunLog
    if request.param == "memory":
        log = MemoryRunLog(limits)
        tell(request.node, "conformance, run log: memory")
    else:
        url: str = request.getfixturevalue("redis_url")
        log = RedisRunLog(RedisLogOptions(url, limits, check_seconds=0.1))
        tell(request.node, f"conformance, run log: {_redis(url)}")
    yield log
    await log.close()


@cache
def _mongodb(uri: str, server: MongoServer | None) -> str:
    client: MongoClient[dict[str, object]]
    with MongoClient(uri, serverSelectionTimeoutMS=5000) as client:
        version = client.server_info()["version"]
    return f"{'the stand-in for MongoDB' if server and server.stand_in else 'MongoDB'} {version}"


@cache
def _redis(url: str) -> str:
    with Redis.from_url(url) as client:
        info = client.info("server")
    name = info.get("server_name", "redis")
    return f"{name} {info.get(f'{name}_version', info['redis_version'])}"
