"""A running stack for tests and benchmarks.

    async with Stack(StackConfig.in_folder(tmp_path, engine="sim", sessions=3)) as stack:
        httpx.get(f"{stack.url}/models")
        await stack.kill("session-2")

Belongs to no event loop: it may be entered on one and used on others. Everything that
blocks happens on one thread of its own, which lives as long as the stack does (on Linux a
child is ended when the thread that started it ends).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from parley_devstack.config import StackConfig
from parley_devstack.core import StackCore
from parley_devstack.process import Plan, State

T = TypeVar("T")


class Stack:
    """The processes of one stack, to be started, hurt, healed and ended.

    Its methods raise DevstackError with a sentence.
    """

    def __init__(self, config: StackConfig) -> None:
        self.config = config
        self._core = StackCore(config)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="devstack")

    async def __aenter__(self) -> Stack:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Starts all parts and returns when they are ready."""
        try:
            await self._do(self._core.start)
        except asyncio.CancelledError:
            self._core.cancel()
            await self._do(self._core.stop)
            raise

    async def stop(self) -> None:
        """Ends all parts; the stack cannot be started again."""
        await self._do(self._core.stop)
        self._thread.shutdown(wait=False)

    @property
    def url(self) -> str:
        """The first gateway's URL, without a slash at the end."""
        return self._core.layout.gateway_urls[0]

    @property
    def urls(self) -> tuple[str, ...]:
        """Every gateway's URL."""
        return self._core.layout.gateway_urls

    @property
    def names(self) -> list[str]:
        """The names of all parts in starting order, spares included."""
        return list(self._core.processes)

    def names_of(self, kind: str) -> list[str]:
        """The names of the parts of one kind that have been started."""
        return [
            process.name
            for process in self._core.processes.values()
            if process.plan.kind == kind and process.state is not State.PLANNED
        ]

    def plan(self, name: str) -> Plan:
        """What a part runs, and its addresses (`grpc`, `http`, `admin`) and log."""
        return self._core.processes[name].plan

    def state(self, name: str) -> State:
        """The part's state when it was last looked at."""
        return self._core.processes[name].state

    def pid(self, name: str) -> int | None:
        """The part's pid while it is there."""
        return self._core.processes[name].pid

    def exit_code(self, name: str) -> int | None:
        """The part's exit status when it was last seen to have ended; negative: a signal's."""
        return self._core.processes[name].exit_code

    @property
    def mongodb_uri(self) -> str:
        """The connection string of the stack's MongoDB."""
        return self.config.mongodb_uri or f"mongodb://{self.plan('mongodb').http}/"

    @property
    def redis_url(self) -> str:
        """The URL of the stack's Valkey."""
        return self.config.redis_url or f"redis://{self.plan('valkey').http}/0"

    async def kill(self, name: str) -> None:
        """Ends a part as a crash would (SIGKILL to its group)."""
        await self._do(lambda: self._core.kill(name))

    async def stop_one(self, name: str) -> None:
        """Ends a part as an operator would (SIGTERM, then SIGKILL when its grace is over)."""
        await self._do(lambda: self._core.stop_one(name))

    async def terminate(self, name: str) -> None:
        """Sends SIGTERM and does not wait: for tests of what a part does while it drains."""
        await self._do(lambda: self._core.terminate(name))

    async def start_one(self, name: str) -> None:
        """Starts a part that was ended, on its old address, and waits until it is ready."""
        await self._do(lambda: self._core.start_one(name))

    async def restart(self, name: str) -> None:
        """Stops a part and starts it on its old address."""
        await self.stop_one(name)
        await self.start_one(name)

    async def pause(self, name: str) -> None:
        """Stops a part where it is: connections stay open and nothing answers."""
        await self._do(lambda: self._core.pause(name))

    async def resume(self, name: str) -> None:
        """Lets a paused part go on."""
        await self._do(lambda: self._core.resume(name))

    async def add(self, kind: str) -> str:
        """Starts one of the spares of that kind and returns its name."""

        def start_spare() -> str:
            name = self._core.next_spare(kind)
            self._core.start_one(name)
            return name

        return await self._do(start_spare)

    async def died(self) -> list[str]:
        """Looks at every part; returns a report for each that has died by itself since."""
        return await self._do(self._core.watch)

    async def _do(self, action: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, action)
