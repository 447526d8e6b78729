"""Ids as the gateway mints them (RFC 9562, version 7)."""

from __future__ import annotations

import os
import time
import uuid


def uuid7() -> str:
    """A new id: 48 bits of milliseconds, then chance."""
    milliseconds = time.time_ns() // 1_000_000
    raw = bytearray(milliseconds.to_bytes(6, "big") + os.urandom(10))
    raw[6] = 0x70 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    return str(uuid.UUID(bytes=bytes(raw)))
