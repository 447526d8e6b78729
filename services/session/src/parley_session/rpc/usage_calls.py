"""The call on what a user has used."""

from __future__ import annotations

from parley.session.v1 import session_pb2 as pb
from parley.session.v1 import session_pb2_grpc as pb_grpc

from parley_session.rpc import from_proto, to_proto
from parley_session.rpc.seam import Context, asked_by
from parley_session.usage import Usage


class UsageCalls(pb_grpc.SessionServiceServicer):
    """Translates; what is done is in `usage`."""

    _usage: Usage

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        """Report usage by day."""
        with asked_by(context) as principal:
            first = from_proto.day("from", request.from_day)
            last = from_proto.day("to", request.to_day)
            days = await self._usage.report(principal, first, last)
            return pb.GetUsageResponse(days=[to_proto.usage_day(day) for day in days])
