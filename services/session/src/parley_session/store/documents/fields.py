"""What all documents are made of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from parley_session.domain.model import FinishReason, Rating

Document = dict[str, Any]
Fields = Mapping[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def projection(*names: str) -> dict[str, int]:
    """A projection of these fields and `_id`."""
    return dict.fromkeys(("_id", *names), 1)


def stored_time(at: datetime) -> datetime:
    """A time as the store keeps it: UTC, cut to whole milliseconds."""
    at = at.astimezone(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def optional_time(at: datetime | None) -> datetime | None:
    """A time as the store keeps it, or none."""
    return None if at is None else stored_time(at)


def token_key(tokenizer_id: str) -> str:
    """A tokenizer's id as a field name: dots and dollars are escaped."""
    return quote(tokenizer_id, safe="/@:+ ").replace(".", "%2E") or "%"


def tokens_to(tokens: Mapping[str, int]) -> Document:
    """Token counts by tokenizer as a sub-document."""
    return {token_key(name): count for name, count in tokens.items()}


def tokens_from(fields: Fields | None) -> dict[str, int]:
    """Token counts by tokenizer from a sub-document."""
    return {"" if key == "%" else unquote(key): int(count) for key, count in (fields or {}).items()}


def value_of(member: FinishReason | Rating | None) -> str | None:
    """A member of an enumeration as it is stored, or none."""
    return None if member is None else member.value
