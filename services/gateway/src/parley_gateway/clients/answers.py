"""Begins an answer at session, or attaches to one, and follows it to its last event.

Until ``accepted`` a failure is a refusal, and one of the transport is tried
once more elsewhere, under the same ids. After it the run is a fact: a stream
that breaks is followed again (``reattach``), and a last event always comes.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from parley.session.v1 import session_pb2 as pb

from parley_gateway import metrics
from parley_gateway.clients.reattach import PASSING_CODES, follow_again
from parley_gateway.clients.session import (
    TRANSPORT_CODES,
    Metadata,
    SessionClient,
    SessionReplica,
)
from parley_kit.errors import ServiceError
from parley_kit.rpc.client import Stream, open_stream

COMPLETE: Final = "parley.session.v1.SessionService/Complete"
ATTACH: Final = "parley.session.v1.SessionService/AttachRun"

# The event's name in RunEvent, and the event.
Named = tuple[str, pb.RunEvent]
# Messages of Complete or of AttachRun: each holds an event.
EventStream = Stream[Any]
# Opens such a stream on a replica, for so many seconds.
Open = Callable[[SessionReplica, float], EventStream]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was accepted. Read ``events`` to the end, or ``close``."""

    accepted: pb.RunAccepted
    events: AsyncGenerator[Named, None]
    _stream: EventStream

    def close(self) -> None:
        """Stop following; the run goes on."""
        self._stream.cancel()


class Answers:
    """Begins answers, and attaches to them."""

    def __init__(self, session: SessionClient) -> None:
        self._session = session

    async def begin(
        self, request: pb.CompleteRequest, metadata: Metadata, *, timeout: float
    ) -> Answer:
        """Have a turn accepted; ``timeout`` in seconds, to the answer's end. Raises ServiceError.

        A caller that leaves before acceptance is not waited for; the turn may stand.
        """

        def complete(replica: SessionReplica, seconds: float) -> EventStream:
            method = replica.attachment.Complete
            return open_stream(method, request, timeout=seconds, metadata=metadata)

        return await self._open(complete, COMPLETE, metadata, offset=0, timeout=timeout)

    async def attach(
        self, run_id: str, offset: int, metadata: Metadata, *, timeout: float
    ) -> Answer:
        """Follow a run from byte ``offset`` on; ``timeout`` in seconds, to its end.

        Raises ServiceError: ``not_found``, ``bad_event_id``.
        """
        request = pb.AttachRunRequest(run_id=run_id, offset=offset)

        def attach(replica: SessionReplica, seconds: float) -> EventStream:
            method = replica.attachment.AttachRun
            return open_stream(method, request, timeout=seconds, metadata=metadata)

        return await self._open(attach, ATTACH, metadata, offset=offset, timeout=timeout)

    async def _open(
        self, opened: Open, name: str, metadata: Metadata, *, offset: int, timeout: float
    ) -> Answer:
        deadline = asyncio.get_running_loop().time() + timeout
        replica = await self._session.pick()
        try:
            stream, accepted = await _accepted(replica, opened, deadline)
        except ServiceError as error:
            if error.code not in TRANSPORT_CODES:
                raise
            replica = await self._session.pick_another(replica, error)
            metrics.SESSION_RETRIES.labels(name).inc()
            stream, accepted = await _accepted(replica, opened, deadline)
        events = self._follow(stream, accepted, replica, metadata, offset, deadline)
        return Answer(accepted, events, stream)

    async def _follow(  # noqa: PLR0917 - the names are plain
        self,
        stream: EventStream,
        accepted: pb.RunAccepted,
        replica: SessionReplica,
        metadata: Metadata,
        offset: int,
        deadline: float,
    ) -> AsyncGenerator[Named, None]:
        try:
            async for response in stream:
                event = response.event
                name = event.WhichOneof("event")
                if name == "delta":
                    offset = event.delta.end_offset
                yield name or "", event
                if name in ("done", "failed"):
                    return
        except ServiceError as error:
            if error.code not in PASSING_CODES:
                raise
        finally:
            stream.cancel()
        # The replica went, or ended the stream without its last event.
        async for named in follow_again(
            self._session,
            accepted,
            offset=offset,
            lost=replica,
            metadata=metadata,
            deadline=deadline,
        ):
            yield named


async def _accepted(
    replica: SessionReplica, opened: Open, deadline: float
) -> tuple[EventStream, pb.RunAccepted]:
    """Open the stream on one replica and read its first event."""
    left = deadline - asyncio.get_running_loop().time()
    stream = opened(replica, max(left, 0.001))
    replica.track(stream)
    try:
        first = await anext(stream, None)
        if first is None or first.event.WhichOneof("event") != "accepted":
            raise ServiceError(
                grpc.StatusCode.UNAVAILABLE, "unavailable", "the stream did not begin as agreed"
            )
    except ServiceError as error:
        stream.cancel()
        if error.code != "cancelled":
            raise
        # Given up, because the replica fell silent; the caller is still there.
        raise ServiceError(
            grpc.StatusCode.UNAVAILABLE, "unavailable", "the replica fell silent"
        ) from error
    except BaseException:
        stream.cancel()
        raise
    return stream, first.event.accepted
