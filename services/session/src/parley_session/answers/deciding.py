"""Whether an answer comes from the cache, and whether it goes there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from opentelemetry import trace

from parley_kit import semconv
from parley_kit.ids import uuid7
from parley_session import metrics
from parley_session.answers.base import Answer, AnswerCache, Hit, Miss, Query, nobody_told
from parley_session.answers.keys import query_of
from parley_session.answers.leasing import Leases
from parley_session.clock import Clock
from parley_session.context.prompt import Prompt
from parley_session.domain.model import (
    CacheInfo,
    CacheMode,
    CacheStatus,
    FinishReason,
    Invalidation,
    Principal,
    Run,
    RunState,
    message_id,
)
from parley_session.store.base import Store, StoreUnavailable

_PRIVATE = frozenset(("global_scope_off", "not_first_turn", "personal_data", "user_flagged"))
"""Why the cache does not share; the user's own answers are not touched by it."""

_tracer = trace.get_tracer(__name__)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided before an answer is made."""

    info: CacheInfo
    # Served instead of asking the engine.
    hit: Hit | None = None
    # Of the lookup that missed.
    stamp: str = ""
    # Others wait for the answer.
    lease: str = ""
    # The answer may be offered to the cache.
    fill: bool = False
    # What was looked up; None: nothing was.
    query: Query | None = None


class Answers:
    """Asks the cache before the engine, and offers it what the engine made.

    `shared`: the answers to first turns may be given to a tenant's other users, and theirs
    may be given; what the cache refuses to share stays the user's own.
    """

    def __init__(
        self, store: Store, cache: AnswerCache, clock: Clock, *, shared: bool = False
    ) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._shared = shared
        self._leases = Leases(cache)

    async def ask(
        self, run: Run, prompt: Prompt, waits: Callable[[], None] = nobody_told
    ) -> Decision:
        """Look the question up, unless the caller does not want it.

        `waits` is called where the answer that another is making will be waited for.
        """
        mode = run.request.options.cache
        if mode is CacheMode.BYPASS:
            decision = Decision(CacheInfo(CacheStatus.BYPASS))
        elif mode is CacheMode.REFRESH:
            decision = Decision(CacheInfo(CacheStatus.MISS, "refresh"), fill=True)
        else:
            with _tracer.start_as_current_span("cache lookup") as span:
                decision = await self._look_up(run, prompt, waits)
                span.set_attribute(semconv.CACHE_VERDICT, decision.info.status.value)
                span.set_attribute(semconv.CACHE_REASON, decision.info.reason)
        metrics.CACHE_VERDICTS.labels(decision.info.status.value, decision.info.reason).inc()
        return decision

    def let_go(self, run_id: str) -> None:
        """This replica makes the run no more: the lease, if there is one, ends by time."""
        self._leases.let_go(run_id)

    async def drop(self, run_id: str, decision: Decision) -> None:
        """Leave a decision unused; its lease, if there is one, is given back."""
        self._leases.let_go(run_id)
        if decision.lease and decision.query is not None:
            await self._cache.release(decision.query, decision.lease)

    async def offer(self, run: Run, prompt: Prompt, decision: Decision) -> None:
        """Offer the answer of a committed run; admission is the cache's to decide.

        Where there is none, those who wait for it are let go on.
        """
        self._leases.let_go(run.id)
        query = decision.query or self._query(run, prompt)
        if run.state is not RunState.COMPLETED or not decision.fill:
            if decision.lease:
                await self._cache.release(query, decision.lease)
            return
        options = run.request.options
        answer = Answer(
            text=run.content,
            finish_reason=run.finish_reason or FinishReason.STOP,
            prompt_tokens=run.usage.prompt_tokens,
            completion_tokens=run.usage.completion_tokens,
            source_message=message_id(run.chat, run.seq + 1),
            source_chat=run.chat,
            source_user=run.user,
            temperature=options.temperature,
            seeded=options.seed is not None,
            stamp=decision.stamp,
            lease=decision.lease,
        )
        reason = await self._cache.store(query, answer)
        if query.shared and reason in _PRIVATE:
            # The lease was of the shared question, and has ended.
            private = replace(query, shared=False)
            reason = await self._cache.store(private, replace(answer, lease=""))
        metrics.CACHE_FILLS.labels(reason).inc()

    def _query(self, run: Run, prompt: Prompt) -> Query:
        query = query_of(run, prompt)
        first = run.seq == 0 and query.context_messages == 0 and not prompt.summary
        return replace(query, shared=self._shared and first)

    async def _look_up(self, run: Run, prompt: Prompt, waits: Callable[[], None]) -> Decision:
        query = self._query(run, prompt)
        found = await self._cache.lookup(query, waits)
        if query.shared and isinstance(found, Miss) and found.reason in _PRIVATE:
            query = replace(query, shared=False)
            found = await self._cache.lookup(query, waits)
        if isinstance(found, Miss):
            if found.lease:
                self._leases.keep(run.id, query, found.lease, found.lease_seconds)
            return replace(_miss(found.reason, found.stamp, found.lease), query=query)
        try:
            if not await self._stands(run, found):
                await self._drop(run, found)
                return _miss("source_gone")
        except StoreUnavailable:
            return _miss("store_unavailable")
        info = CacheInfo(
            found.status,
            found.reason,
            similarity=found.similarity,
            age_seconds=found.age_seconds,
        )
        return Decision(info, hit=found)

    async def _stands(self, run: Run, hit: Hit) -> bool:
        """Whether a hit's source is neither deleted nor flagged: two reads by id.

        The cache may not know yet; the store does, at once.
        """
        tenant = Principal(run.tenant, None)
        message = await self._store.get_message(tenant, hit.source_message)
        if message is None or message.flagged or message.chat != hit.source_chat:
            return False
        chat = await self._store.get_chat(tenant, hit.source_chat)
        return (
            chat is not None
            and chat.deleted_at is None
            and (chat.expires_at is None or chat.expires_at > self._clock.now())
        )

    async def _drop(self, run: Run, hit: Hit) -> None:
        """Have the cache forget an answer whose source is gone."""
        await self._store.insert_invalidation(
            Invalidation(
                id=uuid7(),
                tenant=run.tenant,
                chat=hit.source_chat,
                message=hit.source_message,
                created_at=self._clock.now(),
            )
        )


def _miss(reason: str, stamp: str = "", lease: str = "") -> Decision:
    return Decision(CacheInfo(CacheStatus.MISS, reason), stamp=stamp, lease=lease, fill=True)
