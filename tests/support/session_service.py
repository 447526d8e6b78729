"""The session service over gRPC, on real engines, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from parley.session.v1 import session_pb2 as pb
from parley.session.v1 import session_pb2_grpc as pb_grpc

from parley_kit.errors import ServiceError
from parley_kit.ids import uuid7
from parley_kit.rpc.client import open_channel
from parley_kit.rpc.status import from_rpc_error
from parley_session.bootstrap import Outside, Running, serving
from parley_session.config import SessionSettings
from support.poll import until

ALICE = (("parley-tenant", "acme"), ("parley-user-bin", b"alice"))
BOB = (("parley-tenant", "acme"), ("parley-user-bin", b"bob"))
SECONDS = 20.0


@dataclass
class Stream:
    """A run's events as they were read."""

    accepted: pb.RunAccepted | None = None
    text: str = ""
    deltas: list[pb.RunDelta] = field(default_factory=list)
    done: pb.RunDone | None = None
    failed: pb.RunFailed | None = None

    @property
    def acceptance(self) -> pb.RunAccepted:
        """How it was accepted; it must have been."""
        assert self.accepted is not None, "the run was not accepted"
        return self.accepted

    @property
    def answer(self) -> pb.RunDone:
        """How it was done; it must have been."""
        assert self.done is not None, "the run was not done"
        return self.done

    @property
    def failure(self) -> pb.RunFailed:
        """How it failed; it must have."""
        assert self.failed is not None, "the run did not fail"
        return self.failed

    def take(self, event: pb.RunEvent) -> None:
        """Add an event; checks their order and their offsets."""
        kind = event.WhichOneof("event")
        assert self.done is None, "an event after the last one"
        assert self.failed is None, "an event after the last one"
        if kind == "accepted":
            assert self.accepted is None
            self.accepted = event.accepted
            return
        assert self.accepted is not None
        if kind == "delta":
            self.text += event.delta.text
            self.deltas.append(event.delta)
        elif kind == "done":
            self.done = event.done
        elif kind == "failed":
            self.failed = event.failed


class Client:
    """Calls one session replica as one user; `seconds`: of a call, an answer's end included."""

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Any = ALICE, seconds: float = SECONDS
    ) -> None:
        self.channel = channel
        self.stub: Any = pb_grpc.SessionServiceStub(channel)
        self.metadata = metadata
        self._seconds = seconds

    def as_user(self, metadata: Any) -> Client:
        """The same connection for somebody else."""
        return Client(self.channel, metadata, self._seconds)

    async def call(self, name: str, request: Any, metadata: Any = None) -> Any:
        """Make a unary call; raises ServiceError."""
        try:
            return await getattr(self.stub, name)(
                request, timeout=self._seconds, metadata=metadata or self.metadata
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def complete(
        self, message: str, *, chat: str | None = None, into: Stream | None = None, **given: Any
    ) -> Stream:
        """Post a message, in a new chat unless one is named, and read to the end."""
        request = completion(message, chat=chat, **given)
        return await self._read(self.stub.Complete, request, into)

    async def attach(self, run_id: str, offset: int = 0) -> Stream:
        """Read a run from an offset."""
        request = pb.AttachRunRequest(run_id=run_id, offset=offset)
        return await self._read(self.stub.AttachRun, request, None)

    async def _read(self, method: Any, request: Any, into: Stream | None) -> Stream:
        stream = into or Stream()
        try:
            async for response in method(request, timeout=self._seconds, metadata=self.metadata):
                stream.take(response.event)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return stream


def completion(message: str, *, chat: str | None = None, **given: Any) -> pb.CompleteRequest:
    """A CompleteRequest; `given`: fields of it, or of its options."""
    known = pb.CompletionOptions.DESCRIPTOR.fields_by_name
    options = {name: given.pop(name) for name in list(given) if name in known}
    request = pb.CompleteRequest(
        chat_id=chat or uuid7(),
        run_id=given.pop("run", None) or uuid7(),
        message=message,
        options=pb.CompletionOptions(**options),
    )
    if chat is None:
        request.new_chat.CopyFrom(given.pop("new_chat", None) or pb.NewChat())
    for name, value in given.items():
        setattr(request, name, value)
    return request


async def to_its_end(client: Client, run: str) -> Stream:
    """A run's events, once it has come to its end."""
    found = Stream()

    async def ended() -> bool:
        nonlocal found
        try:
            found = await client.attach(run)
        except ServiceError:
            return False
        return found.done is not None or found.failed is not None

    await until(ended, 60, "the run's end")
    return found


@contextlib.asynccontextmanager
async def session_replica(
    outside: Outside | None = None, **settings: Any
) -> AsyncIterator[tuple[Running, Client]]:
    """A session replica in this process, ready."""
    values: dict[str, Any] = {
        "port": 0,
        "admin_port": 0,
        "mongodb_uri": "mongodb://nowhere",
        "log_redis_url": "redis://nowhere",
        "inference_targets": "nowhere:1",
        "shutdown_grace_seconds": 5.0,
    }
    async with serving(SessionSettings(**(values | settings)), outside) as running:
        await until(lambda: running.server.serving, what="a session that serves")
        channel = open_channel(f"127.0.0.1:{running.port}")
        try:
            yield running, Client(channel)
        finally:
            await channel.close()
