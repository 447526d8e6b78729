"""The answer cache over gRPC: whatever fails is a miss, with its reason."""

from __future__ import annotations

import logging
from collections.abc import Callable

from parley.cache.v1 import cache_pb2 as pb
from parley.cache.v1 import cache_pb2_grpc as pb_grpc

from parley_kit.errors import ServiceError
from parley_kit.replicas import ReplicaSet, Resolver
from parley_kit.rpc.client import call_unary
from parley_kit.rpc.security import Security
from parley_session.answers.base import Answer, Hit, Miss, Query, nobody_told
from parley_session.domain.model import CacheStatus, FinishReason, Invalidation

_log = logging.getLogger(__name__)

_IN_FLIGHT = "in_flight"
"""Of a miss: another makes the answer."""

_HITS = {
    pb.VERDICT_EXACT: CacheStatus.EXACT,
    pb.VERDICT_SEMANTIC: CacheStatus.SEMANTIC,
}


class GrpcAnswerCache:
    """Implements `AnswerCache`. Timeouts in seconds; that of a lookup is time to first token.

    `wait` is the longest wait for an answer that another is known to make; 0: none.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        lookup_timeout: float,
        write_timeout: float,
        wait: float = 0.0,
        security: Security | None = None,
    ) -> None:
        self._lookup_timeout = lookup_timeout
        self._wait = wait
        self._write_timeout = write_timeout
        self._replicas: ReplicaSet[pb_grpc.CacheServiceAsyncStub] = ReplicaSet(
            resolver,
            name="cache",
            health_service="parley.cache.v1.CacheService",
            attach=lambda _address, channel: pb_grpc.CacheServiceStub(channel),
            security=security,
        )

    async def start(self) -> None:
        """Begin to look for replicas; does not wait for any."""
        await self._replicas.start()

    async def stop(self) -> None:
        """Close all connections."""
        await self._replicas.stop()

    async def lookup(self, query: Query, waits: Callable[[], None] = nobody_told) -> Hit | Miss:
        """See `AnswerCache.lookup`."""
        found = await self._look_up(query, wait=0.0)
        if isinstance(found, Miss) and found.reason == _IN_FLIGHT and self._wait > 0:
            # Two calls, so that a cache which hangs costs the short time alone.
            waits()
            found = await self._look_up(query, wait=self._wait)
        return found

    async def _look_up(self, query: Query, wait: float) -> Hit | Miss:
        request = pb.LookupRequest(
            query=_query(query),
            allow_semantic=True,
            want_lease=self._wait > 0,
            max_wait_seconds=wait,
            temperature=query.temperature,
            seeded=query.seeded,
            user=query.user,
        )
        try:
            with self._replicas.pick().use() as replica:
                found = await call_unary(
                    replica.attachment.Lookup, request, timeout=self._lookup_timeout + 2 * wait
                )
        except ServiceError as error:
            return Miss(error.code)
        status = _HITS.get(found.verdict)
        if status is None:
            return Miss(found.reason, found.stamp, found.lease, found.lease_seconds)
        entry = found.entry
        return Hit(
            status=status,
            answer=entry.answer,
            finish_reason=FinishReason(entry.finish_reason),
            prompt_tokens=entry.prompt_tokens,
            completion_tokens=entry.completion_tokens,
            source_message=entry.source_message_id,
            source_chat=entry.source_chat_id,
            age_seconds=entry.age_seconds,
            similarity=found.similarity if found.HasField("similarity") else None,
            reason=found.reason,
        )

    async def store(self, query: Query, answer: Answer) -> str:
        """See `AnswerCache.store`."""
        request = pb.StoreRequest(
            query=_query(query),
            answer=answer.text,
            finish_reason=answer.finish_reason.value,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            source_message_id=answer.source_message,
            source_chat_id=answer.source_chat,
            source_user=answer.source_user,
            temperature=answer.temperature,
            seeded=answer.seeded,
            stamp=answer.stamp,
            lease=answer.lease,
        )
        try:
            with self._replicas.pick().use() as replica:
                stored = await call_unary(
                    replica.attachment.Store, request, timeout=self._write_timeout
                )
        except ServiceError as error:
            return error.code
        return "" if stored.stored else stored.reason

    async def renew(self, query: Query, lease: str, seconds: float) -> float:
        """See `AnswerCache.renew`."""
        request = pb.RenewLeaseRequest(query=_query(query), lease=lease)
        try:
            with self._replicas.pick().use() as replica:
                renewed = await call_unary(
                    replica.attachment.RenewLease, request, timeout=self._write_timeout
                )
        except ServiceError as error:
            _log.debug("a lease could not be renewed", extra={"code": error.code})
            return seconds
        return float(renewed.lease_seconds)

    async def release(self, query: Query, lease: str) -> None:
        """See `AnswerCache.release`."""
        request = pb.ReleaseLeaseRequest(query=_query(query), lease=lease)
        try:
            with self._replicas.pick().use() as replica:
                await call_unary(
                    replica.attachment.ReleaseLease, request, timeout=self._write_timeout
                )
        except ServiceError as error:
            # It ends by time.
            _log.debug("a lease could not be released", extra={"code": error.code})

    async def invalidate(self, invalidation: Invalidation) -> bool:
        """See `AnswerCache.invalidate`."""
        request = pb.InvalidateRequest(
            tenant=invalidation.tenant,
            chat_id=invalidation.chat,
            message_id=invalidation.message or "",
        )
        try:
            with self._replicas.pick().use() as replica:
                await call_unary(
                    replica.attachment.Invalidate, request, timeout=self._write_timeout
                )
        except ServiceError as error:
            _log.warning("the cache has not confirmed an invalidation", extra={"code": error.code})
            return False
        return True


def _query(query: Query) -> pb.Query:
    return pb.Query(
        partition=pb.Partition(
            tenant=query.tenant,
            scope=pb.SCOPE_GLOBAL if query.shared else pb.SCOPE_USER,
            user="" if query.shared else query.user,
            model=query.model,
            model_revision=query.model_revision,
            options_digest=query.options_digest,
            system_digest=query.system_digest,
        ),
        context_fingerprint=query.context_fingerprint,
        context_messages=query.context_messages,
        question=query.question,
    )
