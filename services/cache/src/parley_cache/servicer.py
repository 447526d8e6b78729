"""`parley.cache.v1.CacheService` over gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from parley.cache.v1 import cache_pb2 as pb
from parley.cache.v1 import cache_pb2_grpc as pb_grpc

from parley_cache.cache import AnswerCache, LeaseWish
from parley_cache.convert import (
    asked_from_wire,
    lookup_to_wire,
    offer_from_wire,
    query_from_wire,
    selector_from_wire,
    tenant_from_wire,
)
from parley_cache.store.base import StoreError
from parley_kit.errors import ServiceError
from parley_kit.rpc.deadline import remaining

FULL_NAME = pb.DESCRIPTOR.services_by_name["CacheService"].full_name

UNSERVED: tuple[str, ...] = ()
"""Calls that answer UNIMPLEMENTED."""

# Of the caller's time, what is kept for answering.
_OWN_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Budgets:
    """Longest time for each kind of call, seconds."""

    lookup: float
    write: float
    invalidate: float
    wait: float = 30.0


class CacheServicer(pb_grpc.CacheServiceServicer):
    """Answers calls from the cache.

    Args:
        cache: does the work.
        budgets: bound it, together with the caller's deadline.
    """

    def __init__(self, cache: AnswerCache, budgets: Budgets) -> None:
        self._cache = cache
        self._budgets = budgets

    async def Lookup(self, request: pb.LookupRequest, context: Any) -> pb.LookupResponse:
        """Look an answer up; a failure is a miss."""
        query = asked_from_wire(request)
        seconds = _budget(context, self._budgets.lookup)
        wish = None
        if request.want_lease:
            # What the look-up itself may take is not there for waiting.
            longest = _budget(context, self._budgets.wait + seconds) - seconds
            wait = min(request.max_wait_seconds, max(0.0, longest))
            wish = LeaseWish(wait, request.temperature, request.seeded)
        found = await self._cache.lookup(
            query,
            seconds=seconds,
            semantic=request.allow_semantic,
            wish=wish,
            user=request.user,
        )
        return lookup_to_wire(found, self._cache.lease_seconds)

    async def Store(self, request: pb.StoreRequest, context: Any) -> pb.StoreResponse:
        """Take an answer in, or say why not."""
        offer = offer_from_wire(request)
        result = await self._cache.store(offer, seconds=_budget(context, self._budgets.write))
        return pb.StoreResponse(
            stored=result.stored, reason=result.reason, entry_id=result.entry_id
        )

    async def Invalidate(
        self, request: pb.InvalidateRequest, context: Any
    ) -> pb.InvalidateResponse:
        """Remove entries; succeed only when they are gone."""
        selector = selector_from_wire(request)
        try:
            entries = await self._cache.invalidate(
                request.tenant,
                selector,
                dry_run=request.dry_run,
                seconds=_budget(context, self._budgets.invalidate),
            )
        except StoreError as exc:
            raise _unavailable() from exc
        return pb.InvalidateResponse(entries=entries)

    async def GetStats(self, request: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        """Count a tenant's entries and bytes."""
        tenant = tenant_from_wire(request.tenant)
        try:
            totals = await self._cache.totals(tenant, seconds=_budget(context, self._budgets.write))
        except StoreError as exc:
            raise _unavailable() from exc
        return pb.GetStatsResponse(entries=totals.entries, bytes=totals.bytes)

    async def RenewLease(
        self, request: pb.RenewLeaseRequest, context: Any
    ) -> pb.RenewLeaseResponse:
        """Let a lease stand; a store that is away is asked again by the next call."""
        del context
        query = query_from_wire(request.query)
        return pb.RenewLeaseResponse(lease_seconds=await self._cache.renew(query, request.lease))

    async def ReleaseLease(
        self, request: pb.ReleaseLeaseRequest, context: Any
    ) -> pb.ReleaseLeaseResponse:
        """End a lease; a store that is away ends it by time."""
        del context
        await self._cache.release(query_from_wire(request.query), request.lease)
        return pb.ReleaseLeaseResponse()


def _budget(context: Any, longest: float) -> float:
    return min(longest, _OWN_SHARE * remaining(context, longest))


def _unavailable() -> ServiceError:
    return ServiceError(
        grpc.StatusCode.UNAVAILABLE,
        "store_unavailable",
        "the cache's store is away or did not answer in time",
        retry_after=1.0,
    )
