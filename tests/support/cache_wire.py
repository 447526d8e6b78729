"""Requests to the cache service, for tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from parley.cache.v1 import cache_pb2 as pb

from parley_cache.bootstrap import Running
from support.cache_store import digest

Serve = Callable[..., AbstractAsyncContextManager[tuple[Any, Running]]]
"""Starts a cache service on a Redis URL; gives an async stub and the service."""


def wire_query(question: str = "What is a heron?", **partition: object) -> pb.Query:
    values: dict[str, object] = {
        "tenant": "acme",
        "scope": pb.SCOPE_USER,
        "user": "ann",
        "model": "smol",
        "model_revision": "r1",
        "options_digest": digest("options"),
        "system_digest": digest("system"),
        **partition,
    }
    return pb.Query(
        partition=pb.Partition(**values),  # type: ignore[arg-type]
        context_fingerprint=digest("context"),
        question=question,
    )


def wire_store(
    question: str = "What is a heron?", answer: str = "A wading bird.", **changes: object
) -> pb.StoreRequest:
    values: dict[str, object] = {
        "query": wire_query(question),
        "answer": answer,
        "finish_reason": "stop",
        "prompt_tokens": 12,
        "completion_tokens": 4,
        "source_message_id": "chat-1-2",
        "source_chat_id": "chat-1",
        "source_user": "ann",
        "temperature": 0.7,
        **changes,
    }
    return pb.StoreRequest(**values)  # type: ignore[arg-type]
