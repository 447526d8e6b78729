"""The answer cache: admission, keys, store; a refusal or a failure is a miss.

Nothing here knows of gRPC or Redis. Look-ups and stores never raise for a store
that is away; invalidating and counting do, because their callers must know.
"""

from __future__ import annotations

import enum
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from opentelemetry import trace

from parley_cache import metrics
from parley_cache.admission import AdmissionRules
from parley_cache.barriers import Stamp
from parley_cache.flight import SingleFlight
from parley_cache.guard import StoreGuard
from parley_cache.keys import entry_key, tenant_name, user_name
from parley_cache.model import Credit, Entry, Offer, Query, Scope, Selector, Sources, Totals
from parley_cache.sharing import Sharing
from parley_cache.shelf_life import Expiry, shelf_life_of
from parley_cache.store.base import CacheStore, Found, StoreFull, StoreUnavailable
from parley_cache.tier import SemanticTier
from parley_kit import semconv

_log = logging.getLogger(__name__)
_SHARING_SECONDS = 0.25
_MAX_HITS = 8_192
"""Entries whose hits are counted between two calls of `credit`."""


class Verdict(enum.Enum):
    """What a look-up came to."""

    MISS = "miss"
    EXACT = "exact"
    SEMANTIC = "semantic"


@dataclass(frozen=True, slots=True)
class Lookup:
    """A look-up's answer.

    `entry` is set on a hit; `reason` says why not, or what the second check found.
    `similarity` is the cosine of the two questions, where they were compared.
    """

    verdict: Verdict
    reason: str
    entry: Entry | None
    stamp: str
    age_seconds: float = 0.0
    similarity: float | None = None
    lease: str = ""
    """Of a miss whose asker is to make the answer for all."""


@dataclass(frozen=True, slots=True)
class LeaseWish:
    """An asker's wish for the lease, with what admission needs to know of the decoding."""

    max_wait_seconds: float
    temperature: float
    seeded: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of an offered answer."""

    stored: bool
    reason: str
    entry_id: str


class AnswerCache:
    """Looks answers up, takes them in, and takes them out.

    Args:
        store: where entries are kept.
        guard: bounds each operation on it.
        rules: what is admitted.
        expiry: how long it is served.
        tier: seeks by meaning; None: the exact tier alone.
        flight: gives leases; None: there are none.
        least_askers: users who must have asked before one is given another's answer.
        clock: Unix seconds.
    """

    def __init__(
        self,
        store: CacheStore,
        guard: StoreGuard,
        rules: AdmissionRules,
        expiry: Expiry,
        *,
        tier: SemanticTier | None = None,
        flight: SingleFlight | None = None,
        least_askers: int = 3,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._guard = guard
        self._rules = rules
        self._expiry = expiry
        self._tier = tier
        self._flight = flight
        self._sharing = Sharing(store, guard, least_askers)
        self._clock = clock
        self._hits: Counter[tuple[str, str, int]] = Counter()
        """Tenant, id and tokens of entries that were served since `credit` was called."""

    async def lookup(
        self,
        query: Query,
        *,
        seconds: float,
        semantic: bool = False,
        wish: LeaseWish | None = None,
        user: str = "",
    ) -> Lookup:
        """Look an answer up within so many seconds; every failure is a miss with its reason.

        Args:
            query: the question with what its answer depends on.
            seconds: for both tiers together.
            semantic: whether a question that means the same will do.
            wish: for the lease, if there is to be one; waiting takes its own time.
            user: who asks, in global scope.
        """
        result = await self._share(query, await self._lookup(query, seconds, semantic), user)
        # Without a stamp it was refused, or the store is away: nothing to wait for.
        if wish is not None and result.entry is None and result.stamp:
            boarded = await self._board(query, result, wish, semantic)
            result = await self._share(query, boarded, user)
        metrics.LOOKUPS.labels(result.verdict.value, result.reason).inc()
        if result.entry is not None:
            metrics.SERVED_TOKENS.inc(result.entry.completion_tokens)
            self._note_hit(tenant_name(query.partition.tenant), result.entry)
        span = trace.get_current_span()
        span.set_attribute(semconv.CACHE_VERDICT, result.verdict.value)
        if result.reason:
            span.set_attribute(semconv.CACHE_REASON, result.reason)
        if result.similarity is not None:
            span.set_attribute(semconv.CACHE_SIMILARITY, result.similarity)
        return result

    async def _lookup(self, query: Query, seconds: float, semantic: bool) -> Lookup:
        until = time.monotonic() + seconds
        refusal = self._rules.refuse_query(query)
        if refusal is not None:
            return Lookup(Verdict.MISS, refusal, None, "")
        key = entry_key(query)
        try:
            async with self._guard.operation("get", seconds):
                found = await self._store.get(key)
        except StoreUnavailable:
            return Lookup(Verdict.MISS, "store_unavailable", None, "")
        stamp = found.stamp.encode()
        if found.entry is not None:
            return Lookup(Verdict.EXACT, "", found.entry, stamp, self._age(found.entry))
        if self._tier is None or not semantic:
            return Lookup(Verdict.MISS, found.reason, None, stamp)
        left = until - time.monotonic()
        return await self._seek(self._tier, query, found, max(0.0, left))

    async def _seek(self, tier: SemanticTier, query: Query, found: Found, seconds: float) -> Lookup:
        stamp = found.stamp.encode()
        sought = await tier.seek(query, seconds=seconds)
        if sought.entry is None:
            # Where there was nothing to compare, the exact tier's reason says more.
            reason = found.reason if sought.reason == "not_found" else sought.reason
            return Lookup(Verdict.MISS, reason, None, stamp, similarity=sought.similarity)
        return Lookup(
            Verdict.SEMANTIC,
            sought.reason,
            sought.entry,
            stamp,
            self._age(sought.entry),
            sought.similarity,
        )

    async def _share(self, query: Query, found: Lookup, user: str) -> Lookup:
        """Withhold what one user's question made from another, unless it may be shared."""
        if query.partition.scope is not Scope.GLOBAL or not found.stamp:
            return found
        seconds = _SHARING_SECONDS
        if found.entry is None:
            await self._sharing.note(entry_key(query), user, seconds=seconds)
            return found
        tenant = tenant_name(query.partition.tenant)
        refusal = await self._sharing.refuse(tenant, user, found.entry, seconds=seconds)
        if not refusal:
            return found
        return Lookup(Verdict.MISS, refusal, None, found.stamp, similarity=found.similarity)

    async def _board(self, query: Query, missed: Lookup, wish: LeaseWish, semantic: bool) -> Lookup:
        if self._flight is None or self._rules.refuse_lease(wish.temperature, seeded=wish.seeded):
            return missed
        flight = await self._flight.board(query, max_wait=wish.max_wait_seconds, semantic=semantic)
        if flight.in_flight:
            return replace(missed, reason="in_flight")
        if flight.found is None:
            return missed
        stamp = flight.found.stamp.encode()
        entry = flight.found.entry
        if entry is None:
            return replace(missed, stamp=stamp, lease=flight.lease)
        if flight.leader is not None:
            leader = flight.leader
            return Lookup(
                Verdict.SEMANTIC,
                leader.reason,
                entry,
                stamp,
                self._age(entry),
                leader.similarity,
            )
        return Lookup(Verdict.EXACT, "", entry, stamp, self._age(entry))

    async def release(self, query: Query, lease: str) -> None:
        """End a lease without an answer."""
        if self._flight is not None and lease:
            await self._flight.end(query, lease, answered=False)

    async def renew(self, query: Query, lease: str) -> float:
        """Let a lease stand for as many seconds as are given; 0: it has ended."""
        if self._flight is None or not await self._flight.renew(query, lease):
            return 0.0
        return self._flight.lease_seconds

    @property
    def lease_seconds(self) -> float:
        """How long a lease stands; 0: there are none."""
        return self._flight.lease_seconds if self._flight is not None else 0.0

    def _age(self, entry: Entry) -> float:
        return max(0.0, self._clock() - entry.stored_at)

    def _note_hit(self, tenant: str, entry: Entry) -> None:
        name = (tenant, entry.entry_id, entry.completion_tokens)
        if name in self._hits or len(self._hits) < _MAX_HITS:
            self._hits[name] += 1
        else:
            metrics.UNCREDITED.inc()

    async def credit(self, *, seconds: float) -> None:
        """Tell the store of hits, for entries' worth; called every so often, off the requests."""
        hits, self._hits = self._hits, Counter()
        if not hits:
            return
        credits = [
            Credit(tenant, entry_id, tokens, count)
            for (tenant, entry_id, tokens), count in hits.items()
        ]
        try:
            async with self._guard.operation("credit", seconds):
                await self._store.credit(credits)
        except (StoreFull, StoreUnavailable):
            metrics.UNCREDITED.inc(hits.total())

    async def store(self, offer: Offer, *, seconds: float) -> Stored:
        """Take an answer in, or say why not."""
        result = await self._admit(offer, seconds)
        if self._flight is not None and offer.lease:
            await self._flight.end(offer.query, offer.lease, answered=result.stored)
        outcome = "stored" if result.stored else result.reason
        metrics.STORES.labels(outcome).inc()
        trace.get_current_span().set_attribute(semconv.CACHE_VERDICT, outcome)
        return result

    async def _admit(self, offer: Offer, seconds: float) -> Stored:
        refusal = self._rules.refuse_offer(offer)
        if refusal is not None:
            return Stored(False, refusal, "")
        key = entry_key(offer.query)
        shared = offer.query.partition.scope is Scope.GLOBAL
        if shared:
            refusal = await self._sharing.refuse_source(
                key.tenant, offer.source_user, seconds=seconds
            )
            if refusal:
                return Stored(False, refusal, "")
        meaning = await self._tier.meaning_of(offer.query) if self._tier is not None else None
        life = shelf_life_of(offer.query)
        now = self._clock()
        entry = Entry(
            entry_id=key.entry_id,
            check=key.check,
            answer=offer.answer,
            finish_reason=offer.finish_reason,
            prompt_tokens=offer.prompt_tokens,
            completion_tokens=offer.completion_tokens,
            source_message_id=offer.source_message_id,
            source_chat_id=offer.source_chat_id,
            stored_at=now,
            expires_at=now + self._expiry.draw(life),
            shared_by=user_name(offer.source_user) if shared else "",
        )
        partition = offer.query.partition
        sources = Sources(
            chat_id=offer.source_chat_id,
            message_id=offer.source_message_id,
            user=offer.source_user or partition.user,
            model=partition.model,
        )
        try:
            async with self._guard.operation("put", seconds):
                stamp = Stamp.decode(offer.stamp)
                put = await self._store.put(key, entry, sources, stamp, meaning)
        except StoreFull:
            return Stored(False, "store_full", "")
        except StoreUnavailable:
            return Stored(False, "store_unavailable", "")
        metrics.EVICTED_ENTRIES.inc(put.evicted)
        if put.stored:
            metrics.SHELF_LIVES.labels(life.value).inc()
        if put.stored and self._tier is not None and meaning is not None:
            self._tier.learn(key, meaning)
        return Stored(put.stored, put.reason, key.entry_id if put.stored else "")

    async def invalidate(
        self, tenant: str, selector: Selector, *, dry_run: bool, seconds: float
    ) -> int:
        """Remove what matches; give how many entries.

        One message is named when its answer was rated down or its source is gone:
        then the bar is raised around its question, and whoever shared it shares no more.

        Raises:
            StoreUnavailable: it may be half done; repeat it.
            StoreFull: Redis has no room to remember it by; repeat it.
        """
        operation = "count" if dry_run else "invalidate"
        outcome = "failed"
        try:
            # Tried whatever the breaker says: the caller waits for the truth.
            async with self._guard.operation(operation, seconds, always=True):
                name = tenant_name(tenant)
                if selector.message_id and not dry_run:
                    await self._raise_bars(name, selector)
                entries = await self._store.invalidate(name, selector, dry_run=dry_run)
            outcome = "done"
        finally:
            if not dry_run:
                metrics.INVALIDATIONS.labels(outcome).inc()
        if not dry_run:
            metrics.INVALIDATED_ENTRIES.inc(entries)
        return entries

    async def _raise_bars(self, tenant: str, selector: Selector) -> None:
        try:
            await self._store.flag_sharers(tenant, selector)
            await self._store.raise_bars(tenant, selector)
        except StoreFull:
            # A bar is a precaution; removing is the promise.
            _log.warning("Redis has no room for a raised bar")

    async def totals(self, tenant: str, *, seconds: float) -> Totals:
        """Count a tenant's entries and bytes.

        Raises:
            StoreUnavailable: the store is away.
        """
        async with self._guard.operation("totals", seconds, always=True):
            return await self._store.totals(tenant_name(tenant))
