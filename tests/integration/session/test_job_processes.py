"""Periodic jobs of real replicas: one is killed in mid-job, and Redis goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from parley.cache.v1 import cache_pb2 as pb
from parley.cache.v1 import cache_pb2_grpc as pb_grpc
from prometheus_client.parser import text_string_to_metric_families

from parley_kit.ids import uuid7
from parley_kit.rpc.server import RpcServer, RpcService
from parley_session.clock import utc_now
from parley_session.domain.model import Invalidation
from parley_session.store.mongo.client import MongoOptions
from parley_session.store.mongo.store import MongoStore
from support.poll import until
from support.servers import MongoDatabase, ValkeyServer
from support.session_data import ALICE, make_chat
from support.session_process import SessionProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
CACHE = pb.DESCRIPTOR.services_by_name["CacheService"].full_name
DEADLINE = 3


@dataclass
class Cache(pb_grpc.CacheServiceServicer):
    """A cache that confirms invalidations once it may."""

    may_confirm: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)

    async def Invalidate(self, request: pb.InvalidateRequest, _: object) -> pb.InvalidateResponse:
        self.asked.append(request.chat_id)
        await self.may_confirm.wait()
        self.confirmed.append(request.chat_id)
        return pb.InvalidateResponse(entries=1)

    async def Lookup(self, request: pb.LookupRequest, _: object) -> pb.LookupResponse:
        raise NotImplementedError

    async def Store(self, request: pb.StoreRequest, _: object) -> pb.StoreResponse:
        raise NotImplementedError

    async def RenewLease(self, request: pb.RenewLeaseRequest, _: object) -> pb.RenewLeaseResponse:
        raise NotImplementedError

    async def ReleaseLease(
        self, request: pb.ReleaseLeaseRequest, _: object
    ) -> pb.ReleaseLeaseResponse:
        raise NotImplementedError

    async def GetStats(self, request: pb.GetStatsRequest, _: object) -> pb.GetStatsResponse:
        raise NotImplementedError


@contextlib.asynccontextmanager
async def cache() -> AsyncIterator[tuple[Cache, str]]:
    servicer = Cache()
    service = RpcService(
        CACHE, lambda server: pb_grpc.add_CacheServiceServicer_to_server(servicer, server)
    )
    server = RpcServer(host="127.0.0.1", port=0, services=[service])
    port = await server.start()
    server.set_serving(True)
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        servicer.may_confirm.set()
        await server.stop(1.0)


@pytest.fixture
async def store(mongodb_database: MongoDatabase) -> AsyncIterator[MongoStore]:
    """The replicas' store."""
    made = MongoStore(MongoOptions(mongodb_database.uri, mongodb_database.name))
    await made.prepare()
    yield made
    await made.close()


@pytest.fixture
def environment(mongodb_database: MongoDatabase, valkey_server: ValkeyServer) -> dict[str, str]:
    """A database and a log, as settings; no engine."""
    return {
        "PARLEY_SESSION_MONGODB_URI": mongodb_database.uri,
        "PARLEY_SESSION_MONGODB_DATABASE": mongodb_database.name,
        "PARLEY_SESSION_LOG_REDIS_URL": valkey_server.url,
        "PARLEY_SESSION_INFERENCE_TARGETS": "127.0.0.1:1",
        "PARLEY_SESSION_SWEEP_SECONDS": "0.2",
        "PARLEY_SESSION_HOUSEKEEPING_SECONDS": "0.2",
        "PARLEY_SESSION_JOB_DEADLINE_SECONDS": str(DEADLINE),
        "PARLEY_SESSION_CACHE_WRITE_TIMEOUT_SECONDS": "30",
    }


@contextlib.asynccontextmanager
async def process(environment: dict[str, str], log: Path) -> AsyncIterator[SessionProcess]:
    made = SessionProcess(environment, log)
    await made.start()
    try:
        yield made
    finally:
        await made.end(signal.SIGKILL)


async def runs(of: SessionProcess, job: str, outcome: str = "ok") -> float:
    async with httpx.AsyncClient(timeout=5) as client:
        text = (await client.get(f"http://127.0.0.1:{of.admin_port}/metrics")).text
    wanted = {"job": job, "outcome": outcome}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "parley_session_job_runs_total" and sample.labels == wanted:
                return sample.value
    return 0


async def test_a_job_whose_replica_is_killed_in_the_middle_is_done_by_the_other(
    environment: dict[str, str], store: MongoStore, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        caches, processes = [], []
        for name in ("one", "two"):
            servicer, address = await stack.enter_async_context(cache())
            settings = environment | {"PARLEY_SESSION_CACHE_TARGETS": address}
            caches.append(servicer)
            processes.append(await stack.enter_async_context(process(settings, tmp_path / name)))
        asked = Invalidation(uuid7(), "acme", uuid7(), None, utc_now())
        await store.insert_invalidation(asked)
        await until(lambda: caches[0].asked or caches[1].asked, 20, "a replica in mid-job")
        victim = 0 if caches[0].asked else 1
        taker = 1 - victim
        claimed = await store.get_job("send_invalidations")
        assert claimed is not None
        assert claimed.running
        assert caches[taker].asked == []
        await processes[victim].end(signal.SIGKILL)
        caches[taker].may_confirm.set()

        async def done() -> bool:
            return not await store.list_invalidations(10)

        await until(done, 20, "the other replica")
        assert caches[victim].confirmed == []
        assert caches[taker].confirmed == [asked.chat]
        again = await store.get_job("send_invalidations")
        assert again is not None
        assert again.attempt > claimed.attempt
        assert await processes[taker].end(signal.SIGTERM) == 0
        assert "Traceback" not in processes[taker].output()


async def test_jobs_go_on_while_redis_is_away_and_after_it_came_back_empty(
    environment: dict[str, str],
    store: MongoStore,
    valkey_server: ValkeyServer,
    tmp_path: Path,
) -> None:
    async with (
        process(environment, tmp_path / "one") as one,
        process(environment, tmp_path / "two") as two,
    ):

        async def swept_again() -> None:
            for each in (one, two):
                before = await runs(each, "sweep_runs")

                async def more(each: SessionProcess = each, before: float = before) -> bool:
                    return await runs(each, "sweep_runs") > before + 1

                await until(more, 20, "a replica that sweeps")

        async def expired() -> None:
            chat = make_chat(expires_at=utc_now())
            await store.insert_chat(chat)

            async def deleted() -> bool:
                kept = await store.get_chat(ALICE, chat.id)
                return kept is not None and kept.deleted_at is not None

            await until(deleted, 20, "a chat past its expiry that is deleted")

        await swept_again()
        await expired()
        valkey_server.kill()
        await swept_again()
        await expired()
        valkey_server.start()
        await swept_again()
        await expired()
        for each in (one, two):
            assert await runs(each, "sweep_runs", "failed") == 0
            assert await runs(each, "expire_chats", "failed") == 0
