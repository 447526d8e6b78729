"""Counts or removes answers in the cache."""

from __future__ import annotations

from dataclasses import dataclass

from parley.cache.v1 import cache_pb2 as pb
from parley.cache.v1 import cache_pb2_grpc as pb_grpc

from parley_kit.replicas import ReplicaSet, parse_targets
from parley_kit.rpc.client import call_unary
from parley_kit.rpc.security import secured
from parley_session.config import SessionSettings

READY_SECONDS = 10.0
# A tenant may have a million entries.
CALL_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Selection:
    """What to purge; what is left empty does not narrow it."""

    tenant: str
    user: str = ""
    model: str = ""
    chat: str = ""

    def request(self, *, dry_run: bool) -> pb.InvalidateRequest:
        """Return the call that removes it, or counts it."""
        whole = not (self.user or self.model or self.chat)
        return pb.InvalidateRequest(
            tenant=self.tenant,
            user=self.user,
            model=self.model,
            chat_id=self.chat,
            all=whole,
            dry_run=dry_run,
        )


async def purge(settings: SessionSettings, selection: Selection, *, dry_run: bool) -> int:
    """Remove what is selected, or count it; how many entries.

    Raises ServiceError, TimeoutError (no cache is ready) and StartupError (certificates).
    """
    async with secured(settings) as security:
        replicas: ReplicaSet[pb_grpc.CacheServiceAsyncStub] = ReplicaSet(
            parse_targets(settings.cache_targets),
            name="cache",
            health_service="parley.cache.v1.CacheService",
            attach=lambda _address, channel: pb_grpc.CacheServiceStub(channel),
            security=security,
        )
        await replicas.start()
        try:
            await replicas.wait_ready(READY_SECONDS)
            stub = replicas.pick().attachment
            request = selection.request(dry_run=dry_run)
            answer = await call_unary(stub.Invalidate, request, timeout=CALL_SECONDS)
        finally:
            await replicas.stop()
    return int(answer.entries)
