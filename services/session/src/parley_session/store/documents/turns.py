"""Options, requests and turns as parts of documents, and back."""

from __future__ import annotations

from parley_session.domain.model import (
    CacheMode,
    HistoryStrategy,
    Options,
    RunRequest,
    Turn,
    WhenBusy,
)
from parley_session.store.documents.fields import Document, Fields, stored_time


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
