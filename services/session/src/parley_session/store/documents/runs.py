"""Runs as documents, and back."""

from __future__ import annotations

from parley_session.domain.model import (
    CacheInfo,
    CacheStatus,
    ContextInfo,
    FinishReason,
    FrozenPrompt,
    HistoryStrategy,
    Outcome,
    Problem,
    Run,
    RunState,
    Timings,
    Usage,
)
from parley_session.store.documents.fields import (
    Document,
    Fields,
    optional_time,
    projection,
    stored_time,
    value_of,
)
from parley_session.store.documents.turns import request_from, request_to

RUN_FIELDS = projection(
    *("chat", "tenant", "user", "seq", "state", "request", "createdAt", "deadline", "attempt"),
    *("holder", "handedOver", "faults", "beat", "log", "startedAt", "finishedAt"),
    *("cancelRequested", "prompt", "content"),
    *("finishReason", "usage", "timings", "cache", "context", "source", "error"),
)


def run_to(run: Run) -> Document:
    """A run as a document, ready to be inserted."""
    return {
        "_id": run.id,
        "chat": run.chat,
        "tenant": run.tenant,
        "user": run.user,
        "seq": run.seq,
        "state": run.state.value,
        "final": run.state.final,
        "request": request_to(run.request),
        "createdAt": stored_time(run.created_at),
        "deadline": stored_time(run.deadline),
        "attempt": run.attempt,
        "holder": run.holder,
        "handedOver": run.handed_over,
        "faults": run.faults,
        "beat": run.beat,
        "log": run.log,
        "startedAt": optional_time(run.started_at),
        "finishedAt": optional_time(run.finished_at),
        "cancelRequested": run.cancel_requested,
        "prompt": None if run.prompt is None else prompt_to(run.prompt),
        "content": run.content,
        "finishReason": value_of(run.finish_reason),
        "usage": _usage_to(run.usage),
        "timings": _timings_to(run.timings),
        "cache": None if run.cache is None else _cache_to(run.cache),
        "context": None if run.context is None else _context_to(run.context),
        "source": run.source,
        "error": None if run.error is None else _problem_to(run.error),
    }


def run_from(document: Fields) -> Run:
    """A run from a document."""
    get = document.get
    prompt, finish_reason = get("prompt"), get("finishReason")
    cache, context, error = get("cache"), get("context"), get("error")
    return Run(
        id=document["_id"],
        chat=document["chat"],
        tenant=document["tenant"],
        user=document["user"],
        seq=document["seq"],
        state=RunState(document["state"]),
        request=request_from(document["request"]),
        created_at=document["createdAt"],
        deadline=document["deadline"],
        attempt=get("attempt", 0),
        holder=get("holder", ""),
        handed_over=get("handedOver", 0),
        faults=get("faults", 0),
        beat=get("beat", 0),
        log=get("log"),
        started_at=get("startedAt"),
        finished_at=get("finishedAt"),
        cancel_requested=get("cancelRequested", False),
        prompt=None if prompt is None else _prompt_from(prompt),
        content=get("content", ""),
        finish_reason=None if finish_reason is None else FinishReason(finish_reason),
        usage=_usage_from(get("usage") or {}),
        timings=_timings_from(get("timings") or {}),
        cache=None if cache is None else _cache_from(cache),
        context=None if context is None else _context_from(context),
        source=get("source"),
        error=None if error is None else Problem(error["code"], error["detail"]),
    )


def outcome_to(outcome: Outcome) -> Document:
    """The fields that a commit sets."""
    return {
        "state": outcome.state.value,
        "final": outcome.state.final,
        "content": outcome.content,
        "finishReason": outcome.finish_reason.value,
        "finishedAt": stored_time(outcome.finished_at),
        "usage": _usage_to(outcome.usage),
        "timings": _timings_to(outcome.timings),
        "cache": _cache_to(outcome.cache),
        "context": _context_to(outcome.context),
        "source": outcome.source,
        "error": None if outcome.error is None else _problem_to(outcome.error),
    }


def prompt_to(prompt: FrozenPrompt) -> Document:
    """A frozen prompt as a sub-document."""
    return {
        "firstSeq": prompt.first_seq,
        "lastSeq": prompt.last_seq,
        "system": prompt.system,
        "summary": prompt.summary,
        "templateTime": prompt.template_time,
        "modelRevision": prompt.model_revision,
    }


def _prompt_from(fields: Fields) -> FrozenPrompt:
    return FrozenPrompt(
        first_seq=fields["firstSeq"],
        last_seq=fields["lastSeq"],
        system=fields["system"],
        summary=fields["summary"],
        template_time=fields["templateTime"],
        model_revision=fields["modelRevision"],
    )


def _usage_to(usage: Usage) -> Document:
    return {
        "promptTokens": usage.prompt_tokens,
        "completionTokens": usage.completion_tokens,
        "cachedPromptTokens": usage.cached_prompt_tokens,
    }


def _usage_from(fields: Fields) -> Usage:
    return Usage(
        prompt_tokens=fields.get("promptTokens", 0),
        completion_tokens=fields.get("completionTokens", 0),
        cached_prompt_tokens=fields.get("cachedPromptTokens", 0),
    )


def _timings_to(timings: Timings) -> Document:
    return {"firstToken": timings.first_token, "finished": timings.finished}


def _timings_from(fields: Fields) -> Timings:
    return Timings(first_token=fields.get("firstToken"), finished=fields.get("finished"))


def _cache_to(cache: CacheInfo) -> Document:
    return {
        "status": cache.status.value,
        "reason": cache.reason,
        "similarity": cache.similarity,
        "ageSeconds": cache.age_seconds,
    }


def _cache_from(fields: Fields) -> CacheInfo:
    return CacheInfo(
        status=CacheStatus(fields["status"]),
        reason=fields.get("reason", ""),
        similarity=fields.get("similarity"),
        age_seconds=fields.get("ageSeconds"),
    )


def _context_to(context: ContextInfo) -> Document:
    return {
        "strategy": context.strategy.value,
        "messagesIncluded": context.messages_included,
        "messagesDropped": context.messages_dropped,
        "summaryUsed": context.summary_used,
    }


def _context_from(fields: Fields) -> ContextInfo:
    return ContextInfo(
        strategy=HistoryStrategy(fields["strategy"]),
        messages_included=fields["messagesIncluded"],
        messages_dropped=fields["messagesDropped"],
        summary_used=fields.get("summaryUsed", False),
    )


def _problem_to(problem: Problem) -> Document:
    return {"code": problem.code, "detail": problem.detail}
