"""Cache keys: digests of everything that must be equal, never text.

A key's material is encoded canonically: each field is preceded by its length
(8 bytes, big-endian), so that no two different tuples share an encoding. Two
digests are taken of it by unrelated functions. The first names the entry, the
second is kept inside it and compared on every read: an entry found under a
name it does not belong to (a collision, a reply meant for another request, a
copied key) is never served.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from parley_cache.model import Partition, Query, Sources
from parley_cache.normalise import normalise_question

POLICY_VERSION = 1
"""Part of every key: raise it when normalising or admission changes meaning."""

_LENGTH = struct.Struct(">Q")


def encode_fields(*fields: bytes) -> bytes:
    """Encode a tuple of byte strings so that different tuples differ."""
    parts: list[bytes] = [_LENGTH.pack(len(fields))]
    for field in fields:
        parts.append(_LENGTH.pack(len(field)))
        parts.append(field)
    return b"".join(parts)


def _text(value: str) -> bytes:
    return value.encode("utf-8")


def partition_digest(partition: Partition) -> bytes:
    """Digest of the partition and the policy version (32 bytes)."""
    return hashlib.sha256(
        encode_fields(
            b"parley-cache-partition",
            _LENGTH.pack(POLICY_VERSION),
            _text(partition.tenant),
            _text(partition.scope.value),
            _text(partition.user),
            _text(partition.model),
            _text(partition.model_revision),
            partition.options_digest,
            partition.system_digest,
        )
    ).digest()


def space_name(query: Query, embedder: str) -> str:
    """Name what a question may be compared with by meaning (32 hex digits).

    Args:
        query: of which everything but the question counts.
        embedder: identity of the embedding model: vectors of two are never compared.
    """
    material = encode_fields(
        b"parley-cache-space",
        partition_digest(query.partition),
        query.context_fingerprint,
        _LENGTH.pack(query.context_messages),
        _text(embedder),
    )
    return hashlib.sha256(material).hexdigest()[:32]


def name_digest(kind: str, value: str) -> str:
    """Short name (32 hex digits) of a tenant, chat, message, user or model.

    128 bits: a collision here could only remove too much, never serve an
    answer, because entry names are made of the full values.
    """
    material = encode_fields(b"parley-cache-name", _text(kind), _text(value))
    return hashlib.sha256(material).hexdigest()[:32]


def tenant_name(tenant: str) -> str:
    """Name of a tenant in the store (32 hex digits)."""
    return name_digest("tenant", tenant)


def user_name(user: str) -> str:
    """Name of a user in the store (32 hex digits)."""
    return name_digest("user", user)


@dataclass(frozen=True, slots=True)
class EntryKey:
    """Where a question's answer is kept."""

    tenant: str
    """`tenant_name` of the partition's tenant."""
    entry_id: str
    """SHA-256 of the key's material, 64 hex digits."""
    check: bytes
    """BLAKE2b of the same material, 32 bytes."""


def entry_key(query: Query) -> EntryKey:
    """Derive the exact tier's key of a question."""
    material = encode_fields(
        b"parley-cache-exact",
        partition_digest(query.partition),
        query.context_fingerprint,
        _LENGTH.pack(query.context_messages),
        _text(normalise_question(query.question)),
    )
    return EntryKey(
        tenant=tenant_name(query.partition.tenant),
        entry_id=hashlib.sha256(material).hexdigest(),
        check=hashlib.blake2b(material, digest_size=32).digest(),
    )


@dataclass(frozen=True, slots=True)
class SourceNames:
    """Short names of what an entry can be invalidated by."""

    chat: str
    message: str
    user: str
    model: str


def source_names(sources: Sources) -> SourceNames:
    """Name an entry's sources as its indices and barriers know them."""
    return SourceNames(
        chat=name_digest("chat", sources.chat_id),
        message=name_digest("message", sources.message_id),
        user=name_digest("user", sources.user),
        model=name_digest("model", sources.model),
    )
