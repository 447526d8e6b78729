"""Which questions are looked up and which answers are kept, and why not.

Every refusal is one stable snake_case word: callers show it to users and
metrics count it. The rules are small patterns on purpose, so that a refusal can
be explained; each errs towards refusing, which costs a miss and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from parley_cache.model import Offer, Query, Scope
from parley_cache.patterns import has_personal_data, is_time_dependent

REFUSALS = (
    "answer_too_large",
    "blank_question",
    "cancelled",
    "empty_answer",
    "error",
    "global_scope_off",
    "not_first_turn",
    "personal_data",
    "question_too_large",
    "temperature",
    "time_dependent",
    "tool_calls",
    "truncated",
    "unfinished",
)
"""Every reason that these rules give."""

MAX_UNSEEDED_TEMPERATURE = 0.7

# `stop` alone is a whole answer; these say in one word what another one is.
_UNFINISHED = {
    "length": "truncated",
    "cancelled": "cancelled",
    "error": "error",
    "tool_calls": "tool_calls",
}


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """The operator's part of the rules.

    Args:
        allow_global: whether answers may be shared between a tenant's users.
        max_question_bytes: longest question in UTF-8.
        max_answer_bytes: longest answer in UTF-8.
    """

    allow_global: bool
    max_question_bytes: int
    max_answer_bytes: int

    def refuse_query(self, query: Query) -> str | None:
        """Say why a question is not for the cache, or None: it is."""
        return next(self._query_refusals(query), None)

    def refuse_offer(self, offer: Offer) -> str | None:
        """Say why an answer is not kept, or None: it is."""
        return next(self._offer_refusals(offer), None)

    def refuse_lease(self, temperature: float, *, seeded: bool) -> bool:
        """Say whether an answer so decoded would not be kept, so that nobody waits for it."""
        return not (temperature <= MAX_UNSEEDED_TEMPERATURE or seeded)

    def _query_refusals(self, query: Query) -> Iterator[str]:
        if not query.question.strip():
            yield "blank_question"
        if len(query.question.encode("utf-8")) > self.max_question_bytes:
            yield "question_too_large"
        if query.partition.scope is Scope.GLOBAL:
            if not self.allow_global:
                yield "global_scope_off"
            if query.context_messages:
                yield "not_first_turn"
            if has_personal_data(query.question):
                yield "personal_data"
        if is_time_dependent(query.question):
            yield "time_dependent"

    def _offer_refusals(self, offer: Offer) -> Iterator[str]:
        if offer.finish_reason != "stop":
            yield _UNFINISHED.get(offer.finish_reason, "unfinished")
        if not offer.answer.strip():
            yield "empty_answer"
        # Written so that a NaN is refused as well.
        if not (offer.temperature <= MAX_UNSEEDED_TEMPERATURE or offer.seeded):
            yield "temperature"
        if len(offer.answer.encode("utf-8")) > self.max_answer_bytes:
            yield "answer_too_large"
        yield from self._query_refusals(offer.query)
        if offer.query.partition.scope is Scope.GLOBAL and has_personal_data(offer.answer):
            yield "personal_data"
