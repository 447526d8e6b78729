"""Identifiers: UUIDv7 strings, sortable by the time they were made."""

import re

import uuid_utils

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def uuid7() -> str:
    """Return a new UUIDv7 in its canonical form (36 lower-case characters)."""
    return str(uuid_utils.uuid7())


def is_uuid(text: str) -> bool:
    """Whether ``text`` is a UUID of any version in its canonical lower-case form."""
    return _UUID.fullmatch(text) is not None
