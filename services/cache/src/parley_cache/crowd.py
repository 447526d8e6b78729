"""Single flight for questions that mean the same: who follows whom.

Whoever takes a lease announces the question in its space, and is told in the same step
who had announced one before. Where the second check says that one of them asks the same,
the lease is given back, and that one's answer is waited for: the earliest one's, as the
others may be waiting for it themselves. Announcing and reading are one
transaction, so of two who come together one sees the other, and never each the other.
Who comes alone into an empty space announces the bare question: whoever comes next embeds
both.

What is waited for is named by the asker's own key, made of the asker's partition, context
and the *announced question*: an announcement cannot lead to an answer that the asker could
not have been given by asking that question. All that fails makes the asker a leader.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from parley_cache.guard import StoreGuard
from parley_cache.keys import EntryKey, entry_key, tenant_name
from parley_cache.model import Query
from parley_cache.record import CorruptRecord, decode_meaning, encode_meaning
from parley_cache.store.base import CacheStore, StoreError
from parley_cache.tier import SemanticTier


@dataclass(frozen=True, slots=True)
class Leader:
    """Who makes an answer to a question that means the same."""

    key: EntryKey
    """Of that question, in the asker's own partition."""
    reason: str
    """What the second check found."""
    similarity: float


class Crowd:
    """Those who make answers now, by space.

    Args:
        store: where they are announced.
        guard: bounds each call.
        tier: compares questions.
        seconds: longest call of the store.
    """

    def __init__(
        self, store: CacheStore, guard: StoreGuard, tier: SemanticTier, seconds: float
    ) -> None:
        self._store = store
        self._guard = guard
        self._tier = tier
        self._seconds = seconds

    async def join(self, query: Query, token: str, seconds: float) -> Leader | None:
        """Announce a question for so long; give who makes an equivalent answer already.

        Args:
            query: what is asked.
            token: of the lease that is held.
            seconds: as long as the lease.
        """
        asked = self._tier.question_of(query)
        tenant = tenant_name(query.partition.tenant)
        async with self._guard.operation("announce", self._seconds):
            records = await self._store.announce(
                tenant, asked.space, token, encode_meaning(asked), seconds
            )
        before = []
        for record in records:
            try:
                before.append(decode_meaning(record))
            except CorruptRecord:
                continue
        # Most come alone: nothing was embedded for them yet, and nothing is to be.
        meaning = await self._tier.meaning_of(query) if before else None
        if meaning is None:
            return None
        found = await self._tier.same_as(query, meaning, await self._tier.embedded(before))
        if found is None:
            return None
        question, reason, similarity = found
        key = entry_key(dataclasses.replace(query, question=question))
        return Leader(key, reason, similarity)

    async def leave(self, query: Query, token: str) -> None:
        """Take an announcement back; where that fails, it ends by time."""
        try:
            async with self._guard.operation("announce", self._seconds):
                await self._store.withdraw(
                    tenant_name(query.partition.tenant), self._tier.space_of(query), token
                )
        except StoreError:
            return

    async def stay(self, query: Query, token: str, seconds: float) -> None:
        """Let an announcement stand for so long from now on. Raises StoreError."""
        async with self._guard.operation("announce", self._seconds):
            await self._store.prolong(
                tenant_name(query.partition.tenant), self._tier.space_of(query), token, seconds
            )
