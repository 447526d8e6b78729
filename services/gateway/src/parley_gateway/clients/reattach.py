"""Follows a run whose stream broke after its turn was accepted.

By AttachRun on another replica, from the byte that the caller has: the run is made
there, or read there from what replicas share, or waits there to be taken over. So the
caller sees a pause, not an end. Again and again within the answer's own deadline, for
all that passes; where the deadline passes first, the last event is ``failed``,
``timed_out``.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import grpc
from parley.session.v1 import session_pb2 as pb

from parley_gateway import metrics
from parley_gateway.clients.session import (
    TRANSPORT_CODES,
    Metadata,
    SessionClient,
    SessionReplica,
)
from parley_kit.errors import ServiceError
from parley_kit.rpc.client import open_stream

# Seconds between two tries, growing from the first to the second; a stream that brought
# something begins anew.
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
# What ends a stream, but not the run: the run goes on while the store is away, too.
PASSING_CODES: Final = TRANSPORT_CODES | {"store_unavailable"}

_LAST: Final = frozenset({"done", "failed"})


async def follow_again(
    session: SessionClient,
    accepted: pb.RunAccepted,
    *,
    offset: int,
    lost: SessionReplica,
    metadata: Metadata,
    deadline: float,
) -> AsyncIterator[tuple[str, pb.RunEvent]]:
    """Yield the run's further events, from byte ``offset`` on, to its last one.

    ``deadline`` is a time of the loop. Raises ServiceError for what session
    answers (the chat was deleted meanwhile: ``not_found``).
    """
    clock = asyncio.get_running_loop().time
    pause = FIRST_PAUSE
    # If that made the run, it is taken over at once instead of when its lease runs out.
    lost_replica = accepted.replica
    while (left := deadline - clock()) > 0:
        try:
            lost = await session.pick(avoid=lost)
            request = pb.AttachRunRequest(
                run_id=accepted.run_id, offset=offset, resumed=True, lost_replica=lost_replica
            )
            async for name, event in _attached(lost, request, metadata, left):
                if name == "accepted":
                    lost_replica = event.accepted.replica
                    continue
                if name == "delta":
                    offset = event.delta.end_offset
                    pause = FIRST_PAUSE
                yield name, event
                if name in _LAST:
                    metrics.REATTACHED.labels("attached").inc()
                    return
        except ServiceError as error:
            if error.code == "bad_event_id":
                # What is kept of the answer is less than what was seen of it.
                metrics.REATTACHED.labels("log_lost").inc()
                yield "failed", _failed(accepted, "log_lost")
                return
            if error.status is grpc.StatusCode.DEADLINE_EXCEEDED:
                break
            if error.code not in PASSING_CODES:
                raise
        await asyncio.sleep(min(pause, max(deadline - clock(), 0)))
        pause = min(2 * pause, LONGEST_PAUSE)
    metrics.REATTACHED.labels("timed_out").inc()
    yield "failed", _failed(accepted, "timed_out")


async def _attached(
    replica: SessionReplica, request: pb.AttachRunRequest, metadata: Metadata, timeout: float
) -> AsyncIterator[tuple[str, pb.RunEvent]]:
    stream = open_stream(replica.attachment.AttachRun, request, timeout=timeout, metadata=metadata)
    replica.track(stream)
    try:
        async for response in stream:
            name = response.event.WhichOneof("event")
            if name is not None:
                yield name, response.event
    finally:
        stream.cancel()


def _failed(accepted: pb.RunAccepted, code: str) -> pb.RunEvent:
    return pb.RunEvent(
        failed=pb.RunFailed(
            run_id=accepted.run_id, chat_id=accepted.chat_id, problem=pb.Problem(code=code)
        )
    )
