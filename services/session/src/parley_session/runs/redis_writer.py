"""Writes to the run log: those of one loop tick share a pipeline, in order.

One pipeline is under way at a time, so order holds also for callers that do not wait
for one write before the next; what arrives meanwhile goes together in the next one.
Each write has its own outcome.

This is the way of every piece of text, so it packs and sends commands itself: the client's
own pipeline takes and gives back a connection for each, and several times the CPU.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from time import perf_counter
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from parley_session.runs.log import LogUnavailable
from parley_session.runs.log_metrics import observe
from parley_session.runs.redis_client import bounded, translate

Command = tuple[bytes | str | int, ...]
Batch = list[tuple[Command, asyncio.Future[Any]]]

# Commands in one pipeline.
_MAX_BATCH = 512


class PipelineWriter:
    """Sends commands over one connection of `client`, at most `max_waiting` in line."""

    def __init__(self, client: Redis, *, seconds: float, max_waiting: int) -> None:
        self._client = client
        self._seconds = seconds
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Command, asyncio.Future[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def write(self, command: Command) -> Any:
        """Send a command and return the server's answer. Raises LogFenced, LogUnavailable."""
        if self._closed or len(self._waiting) >= self._max_waiting:
            raise LogUnavailable("closed" if self._closed else "too many writes wait for the log")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((command, future))
        if self._task is None:
            # It begins with the next tick. What it does belongs to no one caller's trace.
            self._task = loop.create_task(self._drain(), context=Context())
        return await future

    async def close(self) -> None:
        """Refuse what waits, and what comes."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=self._seconds)

    async def _drain(self) -> None:
        pool = self._client.connection_pool
        connection: AbstractConnection | None = None
        try:
            while self._waiting:
                size = min(len(self._waiting), _MAX_BATCH)
                batch = [self._waiting.popleft() for _ in range(size)]
                with _outcomes(batch):
                    async with bounded(self._seconds):
                        # One that is given out anew is known to be open, or is opened.
                        if connection is None:
                            connection = await pool.get_connection()  # type: ignore[no-untyped-call]
                        await self._send(connection, batch)
        finally:
            self._task = None
            while self._waiting:
                _fail(self._waiting.popleft()[1], _stopped())
            if connection is not None:
                await pool.release(connection)

    @staticmethod
    async def _send(connection: AbstractConnection, batch: Batch) -> None:
        answered = False
        try:
            commands = connection.pack_commands([command for command, _ in batch])
            await connection.send_packed_command(commands, check_health=False)
            for _, future in batch:
                try:
                    answer = await connection.read_response(disable_decoding=True)
                except ResponseError as error:
                    _fail(future, translate(error))
                else:
                    if not future.done():
                        future.set_result(answer)
            answered = True
        finally:
            if not answered:
                # What is still to come on it would be taken for the answer to something else.
                await connection.disconnect(nowait=True)


@contextmanager
def _outcomes(batch: Batch) -> Iterator[None]:
    """See that each write has an outcome, whatever happens, and count the pipeline."""
    began = perf_counter()
    outcome, failure = "error", _stopped()
    try:
        yield
        outcome = "ok"
    except LogUnavailable as error:
        outcome, failure = "unavailable", error
    finally:
        for _, future in batch:
            _fail(future, failure)
        observe("write", outcome, began)


def _stopped() -> LogUnavailable:
    return LogUnavailable("the log's writer has stopped")


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    # A caller that was cancelled has left; its write may have been applied.
    if not future.done():
        future.set_exception(error)
