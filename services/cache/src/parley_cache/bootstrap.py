"""The one place that builds the cache service's objects and connects them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from parley.cache.v1 import cache_pb2_grpc as pb_grpc

from parley_cache.admission import AdmissionRules
from parley_cache.cache import AnswerCache
from parley_cache.config import CacheSettings
from parley_cache.crowd import Crowd
from parley_cache.flight import FlightRules, SingleFlight
from parley_cache.guard import Breaker, StoreGuard
from parley_cache.semantic.embedding import Model
from parley_cache.servicer import FULL_NAME, Budgets, CacheServicer
from parley_cache.store.base import CacheStore
from parley_cache.store.redis import RedisStore
from parley_cache.store.redis_client import open_client
from parley_cache.tier import SemanticTier
from parley_cache.tier_bootstrap import semantic_tier
from parley_cache.upkeep import Upkeep
from parley_kit.admin import AdminServer
from parley_kit.rpc.security import Security, secured
from parley_kit.rpc.server import RpcServer, RpcService

_log = logging.getLogger(__name__)

_MESSAGE_OVERHEAD_BYTES = 64 * 1024
_MAX_QUESTION_ON_WIRE = 262_144


@dataclass(frozen=True, slots=True)
class Running:
    """A cache service that serves."""

    port: int
    admin_port: int
    server: RpcServer
    upkeep: Upkeep


def build_store(settings: CacheSettings) -> RedisStore:
    """Make the store; nothing is connected yet."""
    client = open_client(
        settings.redis_url.get_secret_value(),
        max_connections=settings.redis_max_connections,
        connect_seconds=settings.redis_connect_seconds,
    )
    return RedisStore(
        client,
        settings.limits,
        settings.barrier_lives,
        prefix=settings.key_prefix,
        max_barriers=settings.max_barriers,
        sweep_seconds=settings.sweep_seconds,
    )


def build_cache(
    settings: CacheSettings, store: CacheStore, guard: StoreGuard, tier: SemanticTier | None
) -> AnswerCache:
    """Make the cache over a store."""
    rules = AdmissionRules(
        allow_global=settings.global_scope,
        max_question_bytes=settings.max_question_bytes,
        max_answer_bytes=settings.max_answer_bytes,
    )
    flight = SingleFlight(
        store,
        guard,
        FlightRules(
            lease_seconds=settings.lease_seconds,
            max_wait_seconds=settings.max_wait_seconds,
            max_waiting=settings.max_waiting,
            call_seconds=settings.lookup_timeout_seconds,
        ),
        Crowd(store, guard, tier, settings.lookup_timeout_seconds) if tier is not None else None,
    )
    return AnswerCache(
        store,
        guard,
        rules,
        settings.expiry,
        tier=tier,
        flight=flight,
        least_askers=settings.global_least_askers,
    )


@contextlib.asynccontextmanager
async def serving(
    settings: CacheSettings, store: CacheStore | None = None, model: Model | None = None
) -> AsyncIterator[Running]:
    """Serve while the block runs, then stop within the grace period.

    The service is ready once Redis has answered for the first time, and stays
    so: a Redis that goes away later makes misses, which readiness cannot mend.

    Args:
        settings: from the environment.
        store: another than the one in Redis, for tests.
        model: another than that of the settings, for tests.

    Raises:
        StartupError: a port is in use or cannot be bound, the certificates are bad, or
            the semantic tier was asked for and cannot be had.
    """
    store = store or build_store(settings)
    guard = StoreGuard(Breaker(settings.breaker_failures, settings.breaker_seconds))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        security = await stack.enter_async_context(secured(settings))
        tier = await stack.enter_async_context(semantic_tier(settings, store, guard, model))
        cache = build_cache(settings, store, guard, tier)
        yield await stack.enter_async_context(_serving(settings, store, guard, cache, security))


@contextlib.asynccontextmanager
async def _serving(
    settings: CacheSettings,
    store: CacheStore,
    guard: StoreGuard,
    cache: AnswerCache,
    security: Security | None,
) -> AsyncIterator[Running]:
    upkeep = Upkeep(store, guard, settings.sweep_seconds, cache)
    servicer = CacheServicer(
        cache,
        Budgets(
            settings.lookup_timeout_seconds,
            settings.write_timeout_seconds,
            settings.invalidate_timeout_seconds,
            settings.max_wait_seconds,
        ),
    )
    server = RpcServer(
        host=settings.host,
        port=settings.port,
        max_connection_age=settings.connection_age_seconds,
        security=security,
        services=[
            RpcService(
                FULL_NAME,
                lambda grpc_server: pb_grpc.add_CacheServiceServicer_to_server(
                    servicer, grpc_server
                ),
            )
        ],
        max_message_bytes=settings.max_answer_bytes
        + _MAX_QUESTION_ON_WIRE
        + _MESSAGE_OVERHEAD_BYTES,
    )
    admin = AdminServer(settings.admin_host, settings.admin_port, lambda: server.serving)
    async with contextlib.AsyncExitStack() as stack:
        admin_port = await admin.start()
        stack.push_async_callback(admin.stop)
        port = await server.start()
        stack.push_async_callback(server.stop, settings.shutdown_grace_seconds)
        tasks = [
            asyncio.create_task(upkeep.run(), name="cache-upkeep"),
            asyncio.create_task(_serve_when_reached(server, upkeep), name="cache-readiness"),
        ]
        try:
            _log.info("serving", extra={"port": port, "admin_port": admin_port})
            yield Running(port, admin_port, server, upkeep)
        finally:
            server.set_serving(False)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _serve_when_reached(server: RpcServer, upkeep: Upkeep) -> None:
    await upkeep.reached.wait()
    server.set_serving(True)
