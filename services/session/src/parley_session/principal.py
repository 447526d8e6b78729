"""Who asks, from a call's metadata (see the head of session.proto)."""

from __future__ import annotations

from collections.abc import Iterable

from parley_session.domain import errors
from parley_session.domain.model import Principal

TENANT = "parley-tenant"
USER = "parley-user-bin"
AS_OWNER = "parley-as-owner"

MAX_CHARACTERS = 128


def principal_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> Principal:
    """Read tenant and user. Raises `unauthenticated` where either is missing or malformed."""
    values = {key: value for key, value in metadata or () if key in (TENANT, USER, AS_OWNER)}
    tenant = values.get(TENANT)
    if not isinstance(tenant, str) or not 1 <= len(tenant) <= MAX_CHARACTERS:
        raise errors.unauthenticated("the call names no tenant")
    if values.get(AS_OWNER) == "1":
        return Principal(tenant, None)
    raw = values.get(USER)
    try:
        user = raw.decode() if isinstance(raw, bytes) else ""
    except UnicodeDecodeError:
        user = ""
    if not 1 <= len(user) <= MAX_CHARACTERS:
        raise errors.unauthenticated("the call names no user")
    return Principal(tenant, user)
