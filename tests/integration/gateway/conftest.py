"""A real gateway on a free port, over real gRPC to in-memory session replicas."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from parley_gateway.bootstrap import Gateway
from parley_gateway.config import GatewaySettings
from parley_kit.replicas import StaticResolver
from support.fake_session import FakeSession, Memory, Script
from support.poll import until


class ChangingResolver:
    """A set of addresses that a test changes."""

    def __init__(self, addresses: frozenset[str]) -> None:
        self.addresses = addresses
        self._changed = asyncio.Event()

    def change(self, addresses: frozenset[str]) -> None:
        self.addresses = addresses
        self._changed.set()

    async def watch(self) -> AsyncIterator[frozenset[str]]:
        while True:
            self._changed.clear()
            yield self.addresses
            await self._changed.wait()

    def server_name(self, address: str) -> str:
        del address
        return ""


class Stack:
    """A gateway, its session replicas, and a client."""

    def __init__(self, replicas: list[FakeSession], gateway: Gateway, memory: Memory) -> None:
        self.replicas = replicas
        self.gateway = gateway
        self.memory = memory
        self.url = f"http://127.0.0.1:{gateway.port}"
        # There is no TLS, and a context for it is dear.
        self.client = httpx.AsyncClient(base_url=self.url, timeout=10, verify=False)

    @property
    def session(self) -> FakeSession:
        return self.replicas[0]


StartStack = Callable[..., Awaitable[Stack]]


@pytest.fixture(scope="session", autouse=True)
def _cheap_collections() -> None:
    gc.freeze()


@pytest.fixture(autouse=True)
def _collect_channels(_cheap_collections: None) -> Iterator[None]:
    """Let closed gRPC channels go while no event loop runs: they take a lock as they go."""
    yield
    gc.collect()


@pytest.fixture
async def start_stack() -> AsyncIterator[StartStack]:
    async with AsyncExitStack() as stack:

        async def start(
            replicas: int = 1,
            script: Script | None = None,
            resolver: ChangingResolver | None = None,
            **settings: Any,
        ) -> Stack:
            memory = Memory()
            fakes = []
            for _ in range(replicas):
                fake = await FakeSession(memory, script).start()
                stack.push_async_callback(fake.stop)
                fakes.append(fake)
            addresses = frozenset(fake.address for fake in fakes)
            if resolver is not None:
                resolver.change(addresses)
            gateway = Gateway(
                GatewaySettings(port=0, admin_port=0, **settings),
                resolver or StaticResolver(addresses),
            )
            await gateway.start()
            stack.push_async_callback(gateway.stop, 1.0)
            found = Stack(fakes, gateway, memory)
            stack.push_async_callback(found.client.aclose)

            async def ready() -> bool:
                return len(gateway.ready_replicas()) == replicas

            if replicas:
                await until(ready, what="all session replicas ready")
            return found

        yield start


@pytest.fixture
async def stack(start_stack: StartStack) -> Stack:
    return await start_stack()
