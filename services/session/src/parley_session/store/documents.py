"""Domain objects as stored documents, and back: the one place that knows field names.

Names are camelCase. Times are BSON dates: UTC, whole milliseconds. Reading ignores
fields that it does not know and fills those that are missing with the domain's
defaults, so that replicas of two versions can share a database.

Some fields exist only for queries and are derived here:

- `chats.busySince`: when the first pending turn was accepted; absent if none is
- `chats.revision`: grows with every write, for compare-and-set
- `runs.final`, `runs.frozen`: the state is final, the prompt is fixed
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from parley_session.domain.model import (
    CacheInfo,
    CacheMode,
    CacheStatus,
    Chat,
    ChatListing,
    ContextInfo,
    FinishReason,
    FrozenPrompt,
    HistoryStrategy,
    Invalidation,
    Message,
    Options,
    Outcome,
    Problem,
    Rating,
    Role,
    Run,
    RunRequest,
    RunState,
    Summary,
    Timings,
    Turn,
    Usage,
    WhenBusy,
    message_id,
)

Document = dict[str, Any]
Fields = Mapping[str, Any]


def projection(*names: str) -> dict[str, int]:
    """A projection of these fields and `_id`."""
    return dict.fromkeys(("_id", *names), 1)


# What a read asks for: every read names its projection.
LISTING_FIELDS = projection("title", "createdAt", "updatedAt", "messageCount")
CHAT_FIELDS = projection(
    *("tenant", "user", "title", "system", "model", "createdAt", "updatedAt", "expiresAt"),
    *("deletedAt", "nextSeq", "messageCount", "pending", "summary"),
)
MESSAGE_FIELDS = projection(
    *("chat", "tenant", "user", "seq", "role", "content", "createdAt", "run", "tokens"),
    *("finishReason", "source", "rating", "flagged"),
)
RUN_FIELDS = projection(
    *("chat", "tenant", "user", "seq", "state", "request", "createdAt", "deadline", "attempt"),
    *("holder", "handedOver", "faults", "beat", "log", "startedAt", "finishedAt"),
    *("cancelRequested", "prompt", "content"),
    *("finishReason", "usage", "timings", "cache", "context", "source", "error"),
)
INVALIDATION_FIELDS = projection("tenant", "chat", "message", "createdAt")


def stored_time(at: datetime) -> datetime:
    """A time as the store keeps it: UTC, cut to whole milliseconds."""
    at = at.astimezone(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _optional_time(at: datetime | None) -> datetime | None:
    return None if at is None else stored_time(at)


def token_key(tokenizer_id: str) -> str:
    """A tokenizer's id as a field name: dots and dollars are escaped."""
    return quote(tokenizer_id, safe="/@:+ ").replace(".", "%2E") or "%"


def _tokens_to(tokens: Mapping[str, int]) -> Document:
    return {token_key(name): count for name, count in tokens.items()}


def _tokens_from(fields: Fields | None) -> dict[str, int]:
    return {"" if key == "%" else unquote(key): int(count) for key, count in (fields or {}).items()}


# requests and turns -----------------------------------------------------------


def options_to(options: Options) -> Document:
    """Options as a sub-document."""
    return {
        "maxTokens": options.max_tokens,
        "temperature": options.temperature,
        "topP": options.top_p,
        "topK": options.top_k,
        "seed": options.seed,
        "stop": list(options.stop),
        "presencePenalty": options.presence_penalty,
        "frequencyPenalty": options.frequency_penalty,
        "jsonSchema": options.json_schema,
        "history": options.history.value,
        "historyTurns": options.history_turns,
        "cache": options.cache.value,
        "whenBusy": options.when_busy.value,
        "timeoutSeconds": options.timeout_seconds,
    }


def options_from(fields: Fields) -> Options:
    """Options from a sub-document."""
    return Options(
        max_tokens=fields["maxTokens"],
        temperature=float(fields["temperature"]),
        top_p=float(fields["topP"]),
        top_k=fields["topK"],
        seed=fields.get("seed"),
        stop=tuple(fields.get("stop") or ()),
        presence_penalty=float(fields["presencePenalty"]),
        frequency_penalty=float(fields["frequencyPenalty"]),
        json_schema=fields.get("jsonSchema", ""),
        history=HistoryStrategy(fields["history"]),
        history_turns=fields.get("historyTurns"),
        cache=CacheMode(fields["cache"]),
        when_busy=WhenBusy(fields["whenBusy"]),
        timeout_seconds=float(fields["timeoutSeconds"]),
    )


def request_to(request: RunRequest) -> Document:
    """A run's request as a sub-document."""
    return {
        "model": request.model,
        "options": options_to(request.options),
        "traceparent": request.traceparent,
        "newChat": request.new_chat,
    }


def request_from(fields: Fields) -> RunRequest:
    """A run's request from a sub-document."""
    return RunRequest(
        model=fields["model"],
        options=options_from(fields["options"]),
        traceparent=fields.get("traceparent", ""),
        new_chat=fields.get("newChat", False),
    )


def turn_to(turn: Turn) -> Document:
    """A turn as an element of `pending`."""
    return {
        "run": turn.run,
        "seq": turn.seq,
        "message": turn.message,
        "request": request_to(turn.request),
        "acceptedAt": stored_time(turn.accepted_at),
    }


def turn_from(fields: Fields) -> Turn:
    """A turn from an element of `pending`."""
    return Turn(
        run=fields["run"],
        seq=fields["seq"],
        message=fields["message"],
        request=request_from(fields["request"]),
        accepted_at=fields["acceptedAt"],
    )


# chats ------------------------------------------------------------------------


def chat_to(chat: Chat) -> Document:
    """A chat as a document, ready to be inserted."""
    document: Document = {
        "_id": chat.id,
        "tenant": chat.tenant,
        "user": chat.user,
        "title": chat.title,
        "system": chat.system,
        "model": chat.model,
        "createdAt": stored_time(chat.created_at),
        "updatedAt": stored_time(chat.updated_at),
        "deletedAt": _optional_time(chat.deleted_at),
        "nextSeq": chat.next_seq,
        "messageCount": chat.message_count,
        "pending": [turn_to(turn) for turn in chat.pending],
        "summary": None if chat.summary is None else summary_to(chat.summary),
        "revision": 0,
    }
    # Absent rather than null, so that sparse indexes hold only what sweepers look for.
    if chat.expires_at is not None:
        document["expiresAt"] = stored_time(chat.expires_at)
    if chat.pending:
        document["busySince"] = stored_time(chat.pending[0].accepted_at)
    return document


def chat_from(document: Fields) -> Chat:
    """A chat from a document."""
    summary = document.get("summary")
    return Chat(
        id=document["_id"],
        tenant=document["tenant"],
        user=document["user"],
        title=document.get("title", ""),
        system=document.get("system", ""),
        model=document.get("model", ""),
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        expires_at=document.get("expiresAt"),
        deleted_at=document.get("deletedAt"),
        next_seq=document.get("nextSeq", 0),
        message_count=document.get("messageCount", 0),
        pending=tuple(turn_from(turn) for turn in document.get("pending") or ()),
        summary=None if summary is None else _summary_from(summary),
    )


def summary_to(summary: Summary) -> Document:
    """A summary as a sub-document."""
    return {
        "text": summary.text,
        "untilSeq": summary.until_seq,
        "tokens": _tokens_to(summary.tokens),
    }


def _summary_from(fields: Fields) -> Summary:
    return Summary(
        text=fields["text"],
        until_seq=fields["untilSeq"],
        tokens=_tokens_from(fields.get("tokens")),
    )


def listing_from(document: Fields) -> ChatListing:
    """A row of a list of chats from a document."""
    return ChatListing(
        id=document["_id"],
        title=document.get("title", ""),
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        message_count=document.get("messageCount", 0),
    )


# messages ---------------------------------------------------------------------


def message_to(message: Message) -> Document:
    """A message as a document, ready to be inserted."""
    return {
        "_id": message_id(message.chat, message.seq),
        "chat": message.chat,
        "tenant": message.tenant,
        "user": message.user,
        "seq": message.seq,
        "role": message.role.value,
        "content": message.content,
        "createdAt": stored_time(message.created_at),
        "run": message.run,
        "tokens": _tokens_to(message.tokens),
        "finishReason": _value(message.finish_reason),
        "source": message.source,
        "rating": _value(message.rating),
        "flagged": message.flagged,
    }


def message_from(document: Fields) -> Message:
    """A message from a document."""
    finish_reason, rating = document.get("finishReason"), document.get("rating")
    return Message(
        chat=document["chat"],
        tenant=document["tenant"],
        user=document["user"],
        seq=document["seq"],
        role=Role(document["role"]),
        content=document["content"],
        created_at=document["createdAt"],
        run=document["run"],
        tokens=_tokens_from(document.get("tokens")),
        finish_reason=None if finish_reason is None else FinishReason(finish_reason),
        source=document.get("source"),
        rating=None if rating is None else Rating(rating),
        flagged=document.get("flagged", False),
    )


def _value(member: FinishReason | Rating | None) -> str | None:
    return None if member is None else member.value


# runs -------------------------------------------------------------------------


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
        "startedAt": _optional_time(run.started_at),
        "finishedAt": _optional_time(run.finished_at),
        "cancelRequested": run.cancel_requested,
        "prompt": None if run.prompt is None else prompt_to(run.prompt),
        "frozen": run.prompt is not None,
        "content": run.content,
        "finishReason": _value(run.finish_reason),
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


# invalidations ----------------------------------------------------------------


def invalidation_to(invalidation: Invalidation) -> Document:
    """An invalidation as a document, ready to be inserted."""
    return {
        "_id": invalidation.id,
        "tenant": invalidation.tenant,
        "chat": invalidation.chat,
        "message": invalidation.message,
        "createdAt": stored_time(invalidation.created_at),
    }


def invalidation_from(document: Fields) -> Invalidation:
    """An invalidation from a document."""
    return Invalidation(
        id=document["_id"],
        tenant=document["tenant"],
        chat=document["chat"],
        message=document.get("message"),
        created_at=document["createdAt"],
    )
