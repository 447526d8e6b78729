"""Starting an answer: with which ids a request goes on, and the acceptance of its turn."""

from __future__ import annotations

from dataclasses import replace

from opentelemetry import trace

from parley_kit.errors import ServiceError
from parley_session import metrics
from parley_session.clock import Clock
from parley_session.domain import errors
from parley_session.domain.model import IdempotencyRecord, Principal
from parley_session.runs.acceptance import Acceptance
from parley_session.runs.asking import Accepted, Completion, find_chat
from parley_session.runs.keys import Keys, KeyTaken, RequestKey
from parley_session.store.base import Store

_tracer = trace.get_tracer(__name__)


class Starter:
    """Accepts turns."""

    def __init__(self, store: Store, acceptance: Acceptance, keys: Keys, clock: Clock) -> None:
        self._store = store
        self._acceptance = acceptance
        self._keys = keys
        self._clock = clock

    async def start(self, principal: Principal, asked: Completion) -> Accepted:
        """Accept a turn and begin to answer it.

        Repeated with the same ids, or the same key, it is the same turn.

        Raises `idempotency_key_reused`, `not_found`, `model_not_found`, `run_in_progress`,
        `queue_full`, `context_too_long`, `overloaded`, `engine_unavailable`: then nothing
        is stored, unless it was before. StoreUnavailable: it may have been accepted.
        """
        with _tracer.start_as_current_span("accept"):
            try:
                return await self._start(principal, asked)
            except ServiceError as refusal:
                metrics.REFUSALS.labels(refusal.code).inc()
                raise

    async def _start(self, principal: Principal, asked: Completion) -> Accepted:
        if asked.key is None:
            return await self._acceptance.accept(principal, asked)
        proposed = await self._propose(principal, asked, asked.key)
        kept = await self._keys.find(proposed)
        if kept is None:
            try:
                accepted = await self._acceptance.accept(principal, asked, proposed)
                # Under ids that were this request's own a moment ago: another one goes on
                # with them.
                return replace(accepted, replayed=accepted.repeated)
            except KeyTaken as taken:
                kept = taken.record
            except ServiceError:
                # The chat may be busy with this very request, sent a moment before: it
                # has claimed the key since.
                kept = await self._keys.find(proposed)
                if kept is None or kept.run == asked.run_id:
                    raise
        again = replace(asked, chat_id=kept.chat, run_id=kept.run)
        accepted = await self._acceptance.accept(principal, again, known=True)
        # With one's own ids there only was an earlier try, whose answer was lost.
        replayed = accepted.repeated and kept.run != asked.run_id
        return replace(accepted, replayed=replayed, background=kept.background)

    async def _propose(
        self, principal: Principal, asked: Completion, key: RequestKey
    ) -> IdempotencyRecord:
        """Make the key's record. The key of a call that acts as the owner is the owner's."""
        user = principal.user
        if asked.new_chat is None:
            user = (await find_chat(self._store, self._clock, principal, asked.chat_id)).user
        if user is None:
            raise errors.unauthenticated("this call must name a user")
        return self._keys.propose(principal.tenant, user, key, chat=asked.chat_id, run=asked.run_id)
