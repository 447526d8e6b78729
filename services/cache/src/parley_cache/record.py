"""How an entry is written: versioned, checksummed, read back or refused.

Layout: one version byte, 8 bytes of BLAKE2b over the rest, then a JSON object. What
the semantic tier keeps beside it is a JSON object and its vector's bytes, with the
object's length (4 bytes, big-endian) before them.
Whatever does not read back whole is `CorruptRecord`, which callers treat as a
miss, count and delete.
"""

from __future__ import annotations

import hashlib
import struct

import orjson

from parley_cache.model import Entry, Meaning

_VERSION = b"\x01"
_SUM_BYTES = 8
_HEAD = len(_VERSION) + _SUM_BYTES
_SIZE = struct.Struct(">I")


class CorruptRecord(Exception):
    """The bytes are not an entry that this version wrote."""


def _checksum(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_SUM_BYTES).digest()


def encode_entry(entry: Entry) -> bytes:
    """Write an entry as bytes."""
    payload = orjson.dumps(
        {
            "id": entry.entry_id,
            "check": entry.check.hex(),
            "answer": entry.answer,
            "finish": entry.finish_reason,
            "prompt": entry.prompt_tokens,
            "completion": entry.completion_tokens,
            "message": entry.source_message_id,
            "chat": entry.source_chat_id,
            "stored": entry.stored_at,
            "expires": entry.expires_at,
            "shared_by": entry.shared_by,
        }
    )
    return _VERSION + _checksum(payload) + payload


def decode_entry(blob: bytes) -> Entry:
    """Read an entry back.

    Raises:
        CorruptRecord: cut off, altered, of another version, or no entry at all.
    """
    payload = _payload(blob)
    try:
        fields = orjson.loads(payload)
        return Entry(
            entry_id=fields["id"],
            check=bytes.fromhex(fields["check"]),
            answer=fields["answer"],
            finish_reason=fields["finish"],
            prompt_tokens=fields["prompt"],
            completion_tokens=fields["completion"],
            source_message_id=fields["message"],
            source_chat_id=fields["chat"],
            stored_at=fields["stored"],
            expires_at=fields["expires"],
            shared_by=fields.get("shared_by", ""),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
        raise CorruptRecord("fields are missing or of the wrong kind") from exc


def encode_meaning(meaning: Meaning) -> bytes:
    """Write what the semantic tier keeps."""
    head = orjson.dumps({"space": meaning.space, "question": _encodable(meaning.question)})
    payload = _SIZE.pack(len(head)) + head + meaning.vector
    return _VERSION + _checksum(payload) + payload


def decode_meaning(blob: bytes) -> Meaning:
    """Read it back.

    Raises:
        CorruptRecord: cut off, altered, of another version, or something else.
    """
    payload = _payload(blob)
    try:
        (size,) = _SIZE.unpack_from(payload)
        fields = orjson.loads(payload[_SIZE.size : _SIZE.size + size])
        return Meaning(
            space=fields["space"],
            question=fields["question"],
            vector=payload[_SIZE.size + size :],
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, struct.error) as exc:
        raise CorruptRecord("fields are missing or of the wrong kind") from exc


def _encodable(text: str) -> str:
    # A lone surrogate cannot come over the wire, but must not end a Store either.
    return text.encode("utf-8", "replace").decode("utf-8")


def _payload(blob: bytes) -> bytes:
    if len(blob) <= _HEAD or blob[:1] != _VERSION:
        raise CorruptRecord("not a record of this version")
    payload = blob[_HEAD:]
    if _checksum(payload) != blob[len(_VERSION) : _HEAD]:
        raise CorruptRecord("checksum does not match")
    return payload
