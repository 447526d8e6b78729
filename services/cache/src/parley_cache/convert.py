"""From the wire to what the cache works with; the bounds of a request are here."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from parley.cache.v1 import cache_pb2 as pb

from parley_cache.cache import Lookup, Verdict
from parley_cache.model import Offer, Partition, Query, Scope, Selector
from parley_kit.errors import FieldError, ServiceError

DIGEST_BYTES = 32
MAX_NAME_CHARACTERS = 512
"""Of tenants, users, models, ids: anything that is not text of a chat."""

_SCOPES = {pb.SCOPE_USER: Scope.USER, pb.SCOPE_GLOBAL: Scope.GLOBAL}
_VERDICTS = {
    Verdict.MISS: pb.VERDICT_MISS,
    Verdict.EXACT: pb.VERDICT_EXACT,
    Verdict.SEMANTIC: pb.VERDICT_SEMANTIC,
}


def _refuse(problems: Iterator[FieldError]) -> None:
    fields = tuple(problems)
    if fields:
        raise ServiceError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid_request",
            "the request is not valid",
            fields=fields,
        )


def _named(field: str, value: str, *, required: bool) -> Iterator[FieldError]:
    if required and not value:
        yield FieldError(field, "is required")
    if len(value) > MAX_NAME_CHARACTERS:
        yield FieldError(field, f"must be at most {MAX_NAME_CHARACTERS} characters")


def _digest(field: str, value: bytes) -> Iterator[FieldError]:
    if len(value) != DIGEST_BYTES:
        yield FieldError(field, f"must be {DIGEST_BYTES} bytes")


def _query_problems(query: pb.Query) -> Iterator[FieldError]:
    partition = query.partition
    yield from _named("query.partition.tenant", partition.tenant, required=True)
    if partition.scope not in _SCOPES:
        yield FieldError("query.partition.scope", "must be USER or GLOBAL")
    yield from _named(
        "query.partition.user", partition.user, required=partition.scope == pb.SCOPE_USER
    )
    yield from _named("query.partition.model", partition.model, required=True)
    yield from _named("query.partition.model_revision", partition.model_revision, required=False)
    yield from _digest("query.partition.options_digest", partition.options_digest)
    yield from _digest("query.partition.system_digest", partition.system_digest)
    yield from _digest("query.context_fingerprint", query.context_fingerprint)


def query_from_wire(query: pb.Query) -> Query:
    """Read a question.

    Raises:
        ServiceError: INVALID_ARGUMENT, naming every field that is wrong.
    """
    _refuse(_query_problems(query))
    partition = query.partition
    scope = _SCOPES[partition.scope]
    return Query(
        partition=Partition(
            tenant=partition.tenant,
            scope=scope,
            user=partition.user if scope is Scope.USER else "",
            model=partition.model,
            model_revision=partition.model_revision,
            options_digest=partition.options_digest,
            system_digest=partition.system_digest,
        ),
        context_fingerprint=query.context_fingerprint,
        context_messages=query.context_messages,
        question=query.question,
    )


def asked_from_wire(request: pb.LookupRequest) -> Query:
    """Read what is looked up.

    Raises:
        ServiceError: INVALID_ARGUMENT, naming every field that is wrong.
    """
    query = query_from_wire(request.query)
    _refuse(_named("user", request.user, required=query.partition.scope is Scope.GLOBAL))
    return query


def _offer_problems(request: pb.StoreRequest) -> Iterator[FieldError]:
    yield from _named("source_message_id", request.source_message_id, required=True)
    yield from _named("source_chat_id", request.source_chat_id, required=True)
    needs_user = request.query.partition.scope == pb.SCOPE_GLOBAL
    yield from _named("source_user", request.source_user, required=needs_user)
    yield from _named("finish_reason", request.finish_reason, required=True)


def offer_from_wire(request: pb.StoreRequest) -> Offer:
    """Read an offered answer.

    Raises:
        ServiceError: INVALID_ARGUMENT, naming every field that is wrong.
    """
    query = query_from_wire(request.query)
    _refuse(_offer_problems(request))
    return Offer(
        query=query,
        answer=request.answer,
        finish_reason=request.finish_reason,
        prompt_tokens=request.prompt_tokens,
        completion_tokens=request.completion_tokens,
        source_message_id=request.source_message_id,
        source_chat_id=request.source_chat_id,
        source_user=request.source_user,
        temperature=request.temperature,
        seeded=request.seeded,
        stamp=request.stamp,
        lease=request.lease,
    )


def _selector_problems(request: pb.InvalidateRequest) -> Iterator[FieldError]:
    yield from _named("tenant", request.tenant, required=True)
    narrowing = {
        "chat_id": request.chat_id,
        "message_id": request.message_id,
        "user": request.user,
        "model": request.model,
    }
    for field, value in narrowing.items():
        yield from _named(field, value, required=False)
    if request.all and any(narrowing.values()):
        yield FieldError("all", "may not be set together with another field")
    if not request.all and not any(narrowing.values()):
        yield FieldError("all", "must be set when no other field says what to remove")


def selector_from_wire(request: pb.InvalidateRequest) -> Selector:
    """Read what to remove.

    Raises:
        ServiceError: INVALID_ARGUMENT, naming every field that is wrong.
    """
    _refuse(_selector_problems(request))
    return Selector(
        chat_id=request.chat_id,
        message_id=request.message_id,
        user=request.user,
        model=request.model,
        all=request.all,
    )


def tenant_from_wire(tenant: str) -> str:
    """Read a tenant.

    Raises:
        ServiceError: INVALID_ARGUMENT: missing or too long.
    """
    _refuse(_named("tenant", tenant, required=True))
    return tenant


def lookup_to_wire(result: Lookup, lease_seconds: float) -> pb.LookupResponse:
    """Write a look-up's answer; a lease, where there is one, stands for so many seconds."""
    response = pb.LookupResponse(
        verdict=_VERDICTS[result.verdict],
        reason=result.reason,
        stamp=result.stamp,
        lease=result.lease,
        lease_seconds=lease_seconds if result.lease else 0.0,
    )
    if result.similarity is not None:
        response.similarity = result.similarity
    entry = result.entry
    if entry is not None:
        response.entry.CopyFrom(
            pb.Entry(
                entry_id=entry.entry_id,
                answer=entry.answer,
                finish_reason=entry.finish_reason,
                prompt_tokens=entry.prompt_tokens,
                completion_tokens=entry.completion_tokens,
                source_message_id=entry.source_message_id,
                source_chat_id=entry.source_chat_id,
                age_seconds=result.age_seconds,
            )
        )
    return response
