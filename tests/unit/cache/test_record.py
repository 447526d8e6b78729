"""Records read back whole or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_cache.record import CorruptRecord, decode_entry, encode_entry
from support.cache_store import Clock, entry_for, query

ENTRY = entry_for(Clock(), query(), "Ein Reiher 🐦, ‘quoted’ \x00 and\nlines")[1]
BLOB = encode_entry(ENTRY)


def test_a_record_reads_back_as_it_was_written() -> None:
    assert decode_entry(BLOB) == ENTRY


@given(st.integers(0, len(BLOB) - 1), st.integers(1, 255))
def test_any_altered_byte_is_noticed(position: int, change: int) -> None:
    altered = bytearray(BLOB)
    altered[position] ^= change
    with pytest.raises(CorruptRecord):
        decode_entry(bytes(altered))


@given(st.integers(0, len(BLOB) - 1))
def test_a_cut_record_is_noticed(length: int) -> None:
    with pytest.raises(CorruptRecord):
        decode_entry(BLOB[:length])


@given(st.binary(max_size=64))
def test_foreign_bytes_are_noticed(blob: bytes) -> None:
    with pytest.raises(CorruptRecord):
        decode_entry(blob)
