"""The calls that begin, follow and stop runs."""

from __future__ import annotations

from contextlib import aclosing

from parley.session.v1 import session_pb2 as pb
from parley.session.v1 import session_pb2_grpc as pb_grpc

from parley_session.domain import bounds
from parley_session.rpc import from_proto, to_proto
from parley_session.rpc.seam import Context, asked_by
from parley_session.runs.cancelling import Canceller
from parley_session.runs.following import Follower
from parley_session.runs.starting import Starter


class RunCalls(pb_grpc.SessionServiceServicer):
    """Translates; what is done is in `runs`."""

    _starter: Starter
    _follower: Follower
    _canceller: Canceller
    # Names this process, as the holder of its runs.
    _replica: str

    # Coroutines that write, not generators: a caller's leaving is raised inside them.
    async def Complete(  # type: ignore[override]
        self, request: pb.CompleteRequest, context: Context
    ) -> None:
        """Accept a turn and stream its run."""
        with asked_by(context) as principal:
            asked = from_proto.completion(request)
            accepted = await self._starter.start(principal, asked)
            first = to_proto.accepted(accepted)
            first.accepted.replica = self._replica
            await context.write(pb.CompleteResponse(event=first))
            if request.background:
                return
            events = self._follower.follow(principal, accepted.run.id, 0, accepted.live)
            async with aclosing(events):
                async for event in events:
                    await context.write(pb.CompleteResponse(event=to_proto.event(event)))

    async def AttachRun(  # type: ignore[override]
        self, request: pb.AttachRunRequest, context: Context
    ) -> None:
        """Stream a run's events from an offset on."""
        with asked_by(context) as principal:
            run_id = from_proto.check_id("run", request.run_id)
            run, _ = await self._follower.find(principal, run_id)
            if not request.resumed:
                await self._follower.check(run, request.offset)
            first = to_proto.run_accepted(run, replayed=False)
            first.accepted.replica = self._replica
            await context.write(pb.AttachRunResponse(event=first))
            events = self._follower.follow(
                principal, run_id, request.offset, lost_replica=request.lost_replica
            )
            async with aclosing(events):
                async for event in events:
                    await context.write(pb.AttachRunResponse(event=to_proto.event(event)))

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """Read a run."""
        with asked_by(context) as principal:
            run_id = from_proto.check_id("run", request.run_id)
            run, _ = await self._follower.find(principal, run_id)
            return pb.GetRunResponse(run=to_proto.run(run))

    async def CancelRun(
        self, request: pb.CancelRunRequest, context: Context
    ) -> pb.CancelRunResponse:
        """Ask a run to stop."""
        with asked_by(context) as principal:
            run_id = from_proto.check_id("run", request.run_id)
            from_proto.check(
                bounds.check_range("waitSeconds", request.wait_seconds, 0, bounds.MAX_WAIT_SECONDS)
            )
            run = await self._canceller.cancel(principal, run_id, request.wait_seconds)
            return pb.CancelRunResponse(run=to_proto.run(run))
