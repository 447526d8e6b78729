"""`python -m parley_cache` as a process, and its store on a Redis cluster."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import grpc
import pytest
import redis.asyncio as redis_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from parley.cache.v1 import cache_pb2 as pb
from parley.cache.v1 import cache_pb2_grpc as pb_grpc

from parley_cache.model import Selector, Totals
from parley_cache.servicer import FULL_NAME
from parley_cache.store.base import Limits
from parley_cache.store.redis import RedisStore
from parley_cache.store.redis_client import open_client
from parley_devstack import stores
from parley_kit.rpc.client import call_unary
from support.cache_store import LIVES, TENANT, Clock, answer_of, put, query
from support.cache_wire import wire_query, wire_store
from support.poll import until
from support.servers import Server, running

pytestmark = pytest.mark.integration


async def start(**settings: str) -> asyncio.subprocess.Process:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "parley_cache"),
        env={**environment, **{f"PARLEY_CACHE_{k}": v for k, v in settings.items()}},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_the_process_serves_logs_json_and_stops_on_sigterm(redis_url: str) -> None:
    process = await start(REDIS_URL=redis_url, PORT="0", ADMIN_PORT="0", KEY_PREFIX="test:process")
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while True:
                line = json.loads(await process.stdout.readline())
                if line["message"] == "serving":
                    break
        async with grpc.aio.insecure_channel(f"127.0.0.1:{line['port']}") as channel:
            health = health_pb2_grpc.HealthStub(channel)

            async def healthy() -> bool:
                answer = await health.Check(health_pb2.HealthCheckRequest(service=FULL_NAME))
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            await until(healthy)
            stub = pb_grpc.CacheServiceStub(channel)
            request = wire_store("a secret question")
            assert (await call_unary(stub.Store, request, timeout=5)).stored
            looked = pb.LookupRequest(query=wire_query("a secret question"))
            hit = await call_unary(stub.Lookup, looked, timeout=5)
            assert hit.verdict == pb.VERDICT_EXACT
            everything = pb.InvalidateRequest(tenant="acme", all=True)
            await call_unary(stub.Invalidate, everything, timeout=5)
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert b"secret" not in out + err


@pytest.mark.parametrize(
    ("settings", "code", "sentence"),
    [
        ({}, 2, "PARLEY_CACHE_REDIS_URL: is required"),
        ({"REDIS_URL": "redis://127.0.0.1:1/0", "TTL_JITTER": "2"}, 2, "PARLEY_CACHE_TTL_JITTER"),
        ({"REDIS_URL": "ftp://user:hunter2@127.0.0.1"}, 2, "PARLEY_CACHE_REDIS_URL"),
        ({"REDIS_URL": "redis://:hunter2@127.0.0.1:x/0"}, 2, "REDIS_URL: is no Redis URL"),
    ],
)
async def test_a_wrong_setting_is_told_in_a_sentence(
    settings: dict[str, str], code: int, sentence: str
) -> None:
    process = await start(**settings)
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == code
    assert sentence in err.decode()
    assert "hunter2" not in err.decode()


async def test_a_port_in_use_is_told_in_a_sentence(redis_url: str) -> None:
    listener = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = str(listener.sockets[0].getsockname()[1])
    process = await start(REDIS_URL=redis_url, PORT=port, ADMIN_PORT="0")
    _, err = await asyncio.wait_for(process.communicate(), 20)
    listener.close()
    assert process.returncode == 3
    assert port in err.decode()


async def test_every_transaction_keeps_to_one_slot_of_a_cluster(tmp_path: Path) -> None:
    server = Server(
        "valkey-cluster",
        lambda port: [
            *stores.valkey_command("127.0.0.1", port, tmp_path, persistent=False),
            *("--cluster-enabled", "yes"),
        ],
        lambda port: stores.answers_ping("127.0.0.1", port),
        tmp_path,
    )
    with running(server):
        url = f"redis://127.0.0.1:{server.port}"
        raw = redis_asyncio.Redis.from_url(url, socket_timeout=None)
        await raw.cluster("addslotsrange", 0, 16383)

        async def whole() -> bool:
            state = await raw.cluster("info")
            return bool(state["cluster_state"] == "ok")

        await until(whole)
        clock = Clock()
        limits = Limits(10**9, 10**6, 10**9, tenant_entries=20)
        store = RedisStore(
            open_client(url, max_connections=8, connect_seconds=2),
            limits,
            LIVES,
            sweep_seconds=0.001,
            clock=clock,
        )
        for number in range(60):
            tenant = f"t{number % 2}"
            assert (await put(store, clock, query(f"q{number}", tenant=tenant), tenant)).stored
        await put(store, clock, query(), chat="c1")
        assert await store.invalidate(TENANT, Selector(chat_id="c1", user="ann"), dry_run=False)
        await put(store, clock, query("second"), chat="c2")
        assert await store.invalidate(TENANT, Selector(all=True), dry_run=False)
        assert await answer_of(store, query("q59", tenant="t1")) == "t1"
        assert (await store.sweep()).totals.entries == 40
        clock.advance(1000)
        await store.sweep()
        assert (await store.sweep()).totals == Totals(0, 0)
        await store.close()
        await raw.aclose()
