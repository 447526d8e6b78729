"""Entries of the run log as bytes: one field, token ids packed, no JSON.

Layout, little endian: version, flags, length of the finish reason (one byte each),
offset, number of token ids, length of the text (four bytes each); then the token ids
(four bytes each), the finish reason, the text in UTF-8. Bytes after these belong to
later versions and are ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from parley_session.runs.log import LogEntry, LogUnavailable

FIELD = b"e"

_VERSION = 1
_LAST = 1
_HEAD = struct.Struct("<BBBIII")
_TOKEN_BYTES = 4

EntryID = tuple[int, int]


def encode(entry: LogEntry) -> bytes:
    """The value of an entry's field; its attempt and number are the entry's id."""
    text = entry.text.encode()
    finish = (entry.finish_reason or "").encode()
    count = len(entry.token_ids)
    head = _HEAD.pack(
        _VERSION, _LAST if entry.last else 0, len(finish), entry.offset, count, len(text)
    )
    return b"".join((head, struct.pack(f"<{count}I", *entry.token_ids), finish, text))


def decode(entry_id: EntryID, fields: Mapping[bytes, bytes]) -> LogEntry:
    """The entry with this id. Raises LogUnavailable if its format is unknown."""
    value = fields.get(FIELD, b"")
    if len(value) < _HEAD.size or value[0] != _VERSION:
        raise LogUnavailable("the log has an entry of an unknown format")
    _, flags, finish_length, offset, count, text_length = _HEAD.unpack_from(value)
    finish_at = _HEAD.size + count * _TOKEN_BYTES
    text_at = finish_at + finish_length
    if len(value) < text_at + text_length:
        raise LogUnavailable("the log has an entry that is cut off")
    attempt, number = entry_id
    return LogEntry(
        attempt=attempt,
        number=number,
        offset=offset,
        text=value[text_at : text_at + text_length].decode(),
        token_ids=struct.unpack_from(f"<{count}I", value, _HEAD.size),
        finish_reason=value[finish_at:text_at].decode() or None,
        last=bool(flags & _LAST),
    )


def format_id(entry_id: EntryID) -> bytes:
    """An entry's id as the server writes it."""
    return b"%d-%d" % entry_id


def parse_id(text: bytes) -> EntryID:
    """An entry's id from what the server writes."""
    attempt, _, number = text.partition(b"-")
    return int(attempt), int(number)
