"""A cache service over real gRPC, on a real Redis or Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from parley.cache.v1 import cache_pb2_grpc as pb_grpc

from parley_cache.bootstrap import Running, serving
from parley_cache.config import CacheSettings
from parley_kit.rpc.client import open_channel
from support.cache_wire import Serve
from support.meaning import WordModel, write_calibration
from support.poll import until


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Starts a cache service on a free port; gives a stub and the service."""

    @contextlib.asynccontextmanager
    async def start(
        url: str, *, reached: bool = True, model: WordModel | None = None, **settings: object
    ) -> AsyncIterator[tuple[Any, Running]]:
        values = {
            "port": 0,
            "admin_port": 0,
            "redis_url": url,
            "key_prefix": f"test:{uuid.uuid4().hex[:8]}",
            "sweep_seconds": 0.05,
            "breaker_seconds": 0.05,
            "shutdown_grace_seconds": 1.0,
            **settings,
        }
        if model is not None:
            path = tmp_path / "calibration.json"
            values.setdefault("semantic", "auto")
            values["calibration"] = str(await asyncio.to_thread(write_calibration, path, model))
            values["lookup_timeout_seconds"] = values["embedding_timeout_seconds"] = 5.0
        parsed = CacheSettings(**values)  # type: ignore[arg-type]
        async with serving(parsed, model=model) as running:
            if reached:
                await until(lambda: running.server.serving, what="the cache to reach its store")
            channel = open_channel(f"127.0.0.1:{running.port}")
            try:
                yield pb_grpc.CacheServiceStub(channel), running
            finally:
                await channel.close()

    return start
