"""Bounds of what callers send, checked again behind the gateway (see docs/api)."""

from __future__ import annotations

from collections.abc import Iterator

from parley_kit.errors import FieldError
from parley_kit.ids import is_uuid

MAX_MESSAGE_BYTES = 256 * 1024
MAX_SYSTEM_BYTES = 32 * 1024
MAX_TITLE_CHARACTERS = 200
MAX_MODEL_CHARACTERS = 200
MAX_TTL_SECONDS = 10 * 365 * 24 * 3600
MAX_LISTED_CHATS = 100
MAX_LISTED_MESSAGES = 200
MAX_WAIT_SECONDS = 10.0
# Of the messages in one page of a chat, in UTF-8; a page has one message at least.
MAX_PAGE_BYTES = 8 * 1024 * 1024
MAX_KEY_CHARACTERS = 255
DIGEST_BYTES = 32


def check_id(field: str, value: str) -> Iterator[FieldError]:
    """Ids are UUIDs."""
    if not is_uuid(value):
        yield FieldError(field, "must be a UUID")


def check_message(text: str) -> Iterator[FieldError]:
    """A user's message: not blank, bounded."""
    if not text.strip():
        yield FieldError("message", "must not be blank")
    yield from check_text("message", text, MAX_MESSAGE_BYTES)


def check_text(field: str, text: str, most_bytes: int) -> Iterator[FieldError]:
    """Any text: bounded, without NUL."""
    # A character is at most 4 bytes: only what may be too long is encoded.
    if len(text) * 4 > most_bytes and len(text.encode()) > most_bytes:
        yield FieldError(field, f"must be at most {most_bytes} bytes of UTF-8")
    if "\x00" in text:
        yield FieldError(field, "must not contain NUL")


def check_title(text: str) -> Iterator[FieldError]:
    """A chat's title."""
    if len(text) > MAX_TITLE_CHARACTERS:
        yield FieldError("title", f"must be at most {MAX_TITLE_CHARACTERS} characters")
    if "\x00" in text:
        yield FieldError("title", "must not contain NUL")


def check_new_chat(title: str, system: str, model: str, ttl_seconds: int) -> Iterator[FieldError]:
    """What a chat is made of."""
    yield from check_title(title)
    yield from check_text("system", system, MAX_SYSTEM_BYTES)
    if len(model) > MAX_MODEL_CHARACTERS or "\x00" in model:
        yield FieldError("model", f"must be at most {MAX_MODEL_CHARACTERS} characters, without NUL")
    if ttl_seconds > MAX_TTL_SECONDS:
        yield FieldError("ttlSeconds", f"must be at most {MAX_TTL_SECONDS}")


def check_key(key: str, digest: bytes) -> Iterator[FieldError]:
    """An idempotency key, if there is one, and the digest of its request."""
    if not key:
        return
    if len(key) > MAX_KEY_CHARACTERS or not all("!" <= character <= "~" for character in key):
        yield FieldError(
            "Idempotency-Key", f"must be 1 to {MAX_KEY_CHARACTERS} visible ASCII characters"
        )
    if len(digest) != DIGEST_BYTES:
        yield FieldError("body_digest", f"must be {DIGEST_BYTES} bytes")


def check_range(field: str, value: float, low: float, high: float) -> Iterator[FieldError]:
    """A number between two bounds, both included."""
    if not low <= value <= high:
        yield FieldError(field, f"must be from {low:g} to {high:g}")
