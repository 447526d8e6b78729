"""Inference replicas for tests: on the simulator in this process, or as processes of their own."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parley.inference.v1 import inference_pb2 as pb
from parley.inference.v1 import inference_pb2_grpc as pb_grpc

from parley_inference.bootstrap import Replica
from parley_inference.config import Settings
from parley_inference.engine.build import build_engine
from parley_kit.rpc.client import open_channel
from support.poll import TIMEOUT, until

CALL_SECONDS = 30.0
REPLICA = (sys.executable, "-m", "parley_inference")


@dataclass
class Answer:
    """A whole answer as it was streamed."""

    started: pb.GenerationStarted | None = None
    chunks: list[pb.GenerationChunk] = field(default_factory=list)
    finished: pb.GenerationFinished | None = None

    @property
    def text(self) -> str:
        """All text; checks that offsets follow one another."""
        text = ""
        for chunk in self.chunks:
            expected = self.chunks[0].offset + len(text.encode())
            assert chunk.offset == expected, f"a chunk at {chunk.offset}, not {expected}"
            text += chunk.text
        return text

    @property
    def token_ids(self) -> list[int]:
        """The tokens of all chunks."""
        return [token_id for chunk in self.chunks for token_id in chunk.token_ids]


def generate_request(text: str = "hello", **options: Any) -> pb.GenerateRequest:
    """A request with one question; ``options`` are fields of it or of its sampling."""
    sampling: dict[str, Any] = {"max_tokens": 64, "temperature": 0.0, "top_p": 1.0}
    known = pb.SamplingOptions.DESCRIPTOR.fields_by_name
    sampling |= {name: options.pop(name) for name in list(options) if name in known}
    values: dict[str, Any] = {"request_id": os.urandom(8).hex(), "model": "sim"}
    values["messages"] = [pb.ChatMessage(role=pb.ROLE_USER, content=text)]
    return pb.GenerateRequest(**(values | options), sampling=pb.SamplingOptions(**sampling))


@dataclass
class Client:
    """Calls one replica."""

    stub: "pb_grpc.InferenceServiceAsyncStub"
    admin_port: int = 0

    async def generate(
        self, request: pb.GenerateRequest, into: Answer | None = None, timeout: float = CALL_SECONDS
    ) -> Answer:
        """Read an answer to its end; what came before an error is in ``into``."""
        answer = into or Answer()
        async for message in self.stub.Generate(request, timeout=timeout):
            kind = message.WhichOneof("event")
            if kind == "started":
                assert answer.started is None
                assert not answer.chunks
                answer.started = message.started
            elif kind == "chunk":
                answer.chunks.append(message.chunk)
            else:
                assert answer.finished is None
                answer.finished = message.finished
        assert answer.started is not None
        assert answer.finished is not None
        return answer

    async def load(self) -> pb.LoadReport:
        """The load now."""
        call = self.stub.WatchLoad(pb.WatchLoadRequest(), timeout=5)
        try:
            async for message in call:
                return message.report
        finally:
            call.cancel()
        raise AssertionError("no load report")

    async def load_until(
        self, holds: Callable[[pb.LoadReport], bool], timeout: float = TIMEOUT
    ) -> pb.LoadReport:
        """Read load reports until one is as wanted; fails after ``timeout`` seconds."""
        seen = None
        request = pb.WatchLoadRequest(min_interval_seconds=0.01)
        call = self.stub.WatchLoad(request, timeout=timeout + 5)
        try:
            async with asyncio.timeout(timeout):
                async for message in call:
                    seen = message.report
                    if holds(seen):
                        return seen
        except TimeoutError:
            raise AssertionError(f"the load never was as wanted; at last: {seen}") from None
        finally:
            call.cancel()
        raise AssertionError("the replica ended its load reports")

    async def idle(self) -> pb.LoadReport:
        """Wait until nothing runs or waits."""
        return await self.load_until(lambda load: load.running == load.waiting == 0)

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples on the admin port; 0 if there is none."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.admin_port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")
        body = (await asyncio.wait_for(reader.read(), 5)).decode()
        writer.close()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in body.splitlines()
            if line.startswith((f"{name} ", f"{name}{{"))
        )


@contextlib.asynccontextmanager
async def connect(port: int, admin_port: int = 0) -> AsyncIterator[Client]:
    """A client of the replica on a port."""
    channel = open_channel(f"127.0.0.1:{port}")
    try:
        yield Client(pb_grpc.InferenceServiceStub(channel), admin_port)
    finally:
        await channel.close()


@contextlib.asynccontextmanager
async def replica_of(**settings: Any) -> AsyncIterator[tuple[Replica, Client]]:
    """A replica in this process, watching its engine."""
    values: dict[str, Any] = {"port": 0, "admin_port": 0, "shutdown_grace_seconds": 5.0}
    options = Settings(**(values | settings))
    replica = Replica(options, build_engine(options))
    await replica.start()
    watching = None
    try:
        await replica.load()
        watching = asyncio.create_task(replica.watch_engine())
        async with connect(replica.port, replica.admin_port) as client:
            yield replica, client
    finally:
        if watching is not None:
            watching.cancel()
        await replica.stop()


@contextlib.asynccontextmanager
async def sim_replica(**settings: Any) -> AsyncIterator[tuple[Replica, Client]]:
    """A replica on the simulator in this process, as fast as can be unless told otherwise."""
    values: dict[str, Any] = {"engine": "sim", "sim_ttft": 0.0, "sim_itl": 0.0}
    async with replica_of(**(values | settings)) as served:
        yield served


class ReplicaProcess:
    """``python -m parley_inference`` with settings from ``environment``; or another command."""

    def __init__(
        self, environment: dict[str, str], log: Path, command: Sequence[str] = REPLICA
    ) -> None:
        self._environment = environment
        self._log = log
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0
        self.admin_port = 0

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status; None while it runs."""
        return None if self._process is None else self._process.returncode

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged, as far as it is JSON."""
        found = []
        for line in self._log.read_text("utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    async def start(self, timeout: float = 30.0) -> None:
        """Start it and wait until it is ready."""
        await self.launch()
        await self.ready(timeout)

    async def ready(self, timeout: float) -> None:
        """Wait until it is ready."""
        await until(lambda: self._said("ready"), timeout, f"ready\n{self._tail()}")

    async def launch(self) -> None:
        """Start it and wait until it listens."""
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")},
            "PARLEY_INFERENCE_PORT": "0",
            "PARLEY_INFERENCE_ADMIN_PORT": "0",
            **self._environment,
        }
        with self._log.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=environment,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
            )
        line = await until(lambda: self._said("listening"), 60.0, "listening")
        assert line is not None
        self.port, self.admin_port = line["port"], line["admin_port"]

    def _said(self, message: str) -> dict[str, Any] | None:
        assert self._process is not None
        if self._process.returncode is not None:
            raise RuntimeError(f"exited with {self._process.returncode}:\n{self._tail()}")
        return next((line for line in self.lines() if line.get("message") == message), None)

    def _tail(self) -> str:
        return self.output()[-4000:]

    def output(self) -> str:
        """All that it has written."""
        return self._log.read_text("utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def wait(self, timeout: float = 30.0) -> int:
        """Wait until it has ended; its exit status."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), timeout)

    async def stop(self) -> None:
        """End it in any case."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await self.wait()
        except TimeoutError:
            self._process.kill()
            await self.wait()


@contextlib.asynccontextmanager
async def replica_process(
    environment: dict[str, str], folder: Path
) -> AsyncIterator[tuple[ReplicaProcess, Client]]:
    """A replica as a process of its own, ready; on the simulator unless told otherwise."""
    process = ReplicaProcess({"PARLEY_INFERENCE_ENGINE": "sim", **environment}, folder / "log")
    try:
        await process.start()
        async with connect(process.port, process.admin_port) as client:
            yield process, client
    finally:
        await process.stop()


def chat(*contents: str, system: str = "") -> Sequence[pb.ChatMessage]:
    """Messages of user and assistant in turn, after a system prompt if one is given."""
    messages = [pb.ChatMessage(role=pb.ROLE_SYSTEM, content=system)] if system else []
    for index, content in enumerate(contents):
        role = pb.ROLE_ASSISTANT if index % 2 else pb.ROLE_USER
        messages.append(pb.ChatMessage(role=role, content=content))
    return messages
