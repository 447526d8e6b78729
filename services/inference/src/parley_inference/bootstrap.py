"""Builds a replica from its settings, runs it, and takes it down."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Final

from parley.inference.v1 import inference_pb2_grpc as pb_grpc

from parley_inference import metrics
from parley_inference.bounds import Bounds
from parley_inference.config import Settings
from parley_inference.door import Door
from parley_inference.engine.base import Engine
from parley_inference.engine.build import build_engine, build_part
from parley_inference.follower import Follower
from parley_inference.generation import Generator
from parley_inference.servicer import ENDLESS, SERVICE, InferenceServicer
from parley_kit.admin import AdminServer
from parley_kit.rpc.security import Security, secured
from parley_kit.rpc.server import RpcServer, RpcService
from parley_kit.telemetry import setup_telemetry

_log = logging.getLogger(__name__)

# How often the engine's life is looked at when no request meets its death first.
_HEALTH_SECONDS: Final = 0.5
ENGINE_DIED: Final = 4


@dataclass(slots=True)
class Outcome:
    """What is left of a replica that has ended: the exit status of its process."""

    exit_code: int = 0


class Replica:
    """One engine, its door, and the servers before it."""

    def __init__(
        self, settings: Settings, engine: Engine, security: Security | None = None
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._door = Door(
            settings.max_waiting,
            max_queued_tokens=settings.max_queued_tokens,
            shares=settings.tenant_shares,
        )
        bounds = Bounds(settings.max_messages, settings.max_prompt_bytes)
        servicer = InferenceServicer(
            engine,
            self._door,
            Generator(
                engine, self._door, bounds=bounds, coalesce_seconds=settings.coalesce_seconds
            ),
            bounds=bounds,
            load_interval_seconds=settings.load_interval_seconds,
        )
        self._server = RpcServer(
            host=settings.host,
            port=settings.port,
            max_connection_age=settings.connection_age_seconds,
            security=security,
            services=[
                RpcService(
                    SERVICE,
                    lambda server: pb_grpc.add_InferenceServiceServicer_to_server(servicer, server),
                    endless=ENDLESS,
                )
            ],
            # The bound on prompts is ours to refuse, with its own error.
            max_message_bytes=settings.max_prompt_bytes * 2 + 1024 * 1024,
        )
        self._admin = AdminServer(
            settings.admin_host,
            settings.admin_port,
            lambda: self._server.serving,
            why=lambda: self._engine.progress or self._door.shut,
        )
        self._trouble = ""
        self.port = 0
        self.admin_port = 0

    @property
    def serving(self) -> bool:
        """Whether new requests are wanted."""
        return self._server.serving

    async def start(self) -> None:
        """Listen, saying `not ready`; the engine starts in ``load``."""
        self.port = await self._server.start()
        self.admin_port = await self._admin.start()
        metrics.READY.set_function(lambda: float(self._server.serving))
        _log.info(
            "listening",
            extra={"port": self.port, "admin_port": self.admin_port, "host": self._settings.host},
        )

    async def load(self) -> None:
        """Start the engine, then serve."""
        began = time.monotonic()
        metrics.LOADING_SECONDS.set_function(lambda: time.monotonic() - began)
        await self._engine.start()
        took = time.monotonic() - began
        metrics.LOADING_SECONDS.set_function(lambda: took)
        metrics.KV_FREE_RATIO.set_function(lambda: self._engine.kv_free_ratio)
        metrics.MAX_RUNNING.set(self._engine.info.max_running)
        self._door.open(self._engine.info.max_running)
        self._server.set_serving(True)
        info = self._engine.info
        _log.info("ready", extra={"model": info.model_id, "engine": info.engine})

    async def watch_engine(self) -> None:
        """Return when the engine has died; callers are told at once."""
        # Looked at, not waited for: an engine need not notice its own end.
        while self._engine.alive:
            self._follow_trouble()
            await asyncio.sleep(_HEALTH_SECONDS)
        _log.error("the engine has died")
        self._server.set_serving(False)
        self._door.close("the engine has died")

    def _follow_trouble(self) -> None:
        """Not ready while the engine has trouble that may pass."""
        trouble = self._engine.trouble
        if trouble == self._trouble or self._door.draining:
            return
        self._trouble = trouble
        self._server.set_serving(not trouble)
        if trouble:
            self._door.close(trouble)
        else:
            self._door.open(self._engine.info.max_running)

    async def stop(self) -> None:
        """Say so, wait until it is noticed, let requests end within the grace, take all down."""
        settings = self._settings
        delay = settings.drain_delay_seconds if self._server.serving else 0.0
        self._server.set_serving(False)
        self._door.drain()
        if delay:
            await asyncio.sleep(delay)
        if not self._door.shut:
            self._door.close("the replica is draining")
        try:
            await self._server.stop(max(settings.shutdown_grace_seconds - delay, 0.0))
        finally:
            await self._engine.stop()
            await self._admin.stop()


async def serve(settings: Settings, stop: asyncio.Event, outcome: Outcome) -> None:
    """Run a replica, or another machine's part of one, until ``stop`` is set or its engine died.

    Raises StartupError if it cannot start.
    """
    telemetry = setup_telemetry(
        "parley-inference", settings.otlp_endpoint, sample_ratio=settings.trace_sample_ratio
    )
    stopping = asyncio.create_task(stop.wait())
    try:
        async with secured(settings) as security:
            replica: Replica | Follower
            if settings.node_rank:
                replica = Follower(settings, build_part(settings))
            else:
                replica = Replica(settings, build_engine(settings), security)
            await replica.start()
            try:
                await _run(replica, settings, stopping, outcome)
            finally:
                await replica.stop()
    finally:
        stopping.cancel()
        await asyncio.to_thread(telemetry.shutdown)


async def _run(
    replica: Replica | Follower,
    settings: Settings,
    stopping: asyncio.Task[bool],
    outcome: Outcome,
) -> None:
    loading = asyncio.create_task(replica.load())
    await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        loading.cancel()
        await asyncio.wait({loading})
        return
    loading.result()
    watching = asyncio.create_task(replica.watch_engine())
    try:
        await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done() and settings.exit_when_engine_dies:
            outcome.exit_code = ENGINE_DIED
            return
        await stopping
    finally:
        watching.cancel()
