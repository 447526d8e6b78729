"""The cache service behind the session service in one process, through the wire's messages."""

from __future__ import annotations

from collections.abc import Callable

from parley.cache.v1 import cache_pb2 as pb

from parley_cache.cache import AnswerCache
from parley_cache.convert import (
    asked_from_wire,
    lookup_to_wire,
    offer_from_wire,
    selector_from_wire,
)
from parley_session.answers.base import Answer, Hit, Miss, Query, nobody_told
from parley_session.answers.grpc_cache import _query
from parley_session.domain.model import CacheStatus, FinishReason, Invalidation

SECONDS = 5.0


class JoinedCache:
    """The session's `AnswerCache` on a cache service's; no leases."""

    def __init__(self, cache: AnswerCache) -> None:
        self.cache = cache

    async def lookup(self, query: Query, waits: Callable[[], None] = nobody_told) -> Hit | Miss:
        request = pb.LookupRequest(query=_query(query), user=query.user)
        asked = asked_from_wire(request)
        found = lookup_to_wire(
            await self.cache.lookup(asked, seconds=SECONDS, semantic=True, user=request.user), 0.0
        )
        if not found.HasField("entry"):
            return Miss(found.reason, found.stamp)
        exact = found.verdict == pb.VERDICT_EXACT
        return Hit(
            status=CacheStatus.EXACT if exact else CacheStatus.SEMANTIC,
            answer=found.entry.answer,
            finish_reason=FinishReason(found.entry.finish_reason),
            prompt_tokens=found.entry.prompt_tokens,
            completion_tokens=found.entry.completion_tokens,
            source_message=found.entry.source_message_id,
            source_chat=found.entry.source_chat_id,
            age_seconds=found.entry.age_seconds,
        )

    async def store(self, query: Query, answer: Answer) -> str:
        request = pb.StoreRequest(
            query=_query(query),
            answer=answer.text,
            finish_reason=answer.finish_reason.value,
            source_message_id=answer.source_message,
            source_chat_id=answer.source_chat,
            source_user=answer.source_user,
            temperature=answer.temperature,
            seeded=answer.seeded,
            stamp=answer.stamp,
        )
        stored = await self.cache.store(offer_from_wire(request), seconds=SECONDS)
        return "" if stored.stored else stored.reason

    async def renew(self, query: Query, lease: str, seconds: float) -> float:
        return 0.0

    async def release(self, query: Query, lease: str) -> None:
        return

    async def invalidate(self, invalidation: Invalidation) -> bool:
        request = pb.InvalidateRequest(
            tenant=invalidation.tenant,
            chat_id=invalidation.chat,
            message_id=invalidation.message or "",
        )
        selector = selector_from_wire(request)
        await self.cache.invalidate(request.tenant, selector, dry_run=False, seconds=SECONDS)
        return True
