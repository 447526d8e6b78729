from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_session.runs.log import LogEntry, LogUnavailable
from parley_session.runs.log_codec import FIELD, decode, encode, format_id, parse_id

small = st.integers(0, 2**32 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
entries = st.builds(
    LogEntry,
    attempt=st.integers(1, 2**31),
    number=st.integers(0, 2**64 - 1),
    offset=small,
    text=texts,
    token_ids=st.lists(small, max_size=20).map(tuple),
    finish_reason=st.sampled_from([None, "stop", "length", "error"]),
    last=st.booleans(),
)


@given(entries)
def test_an_entry_comes_back_as_it_was(entry: LogEntry) -> None:
    entry_id = parse_id(format_id((entry.attempt, entry.number)))
    assert decode(entry_id, {FIELD: encode(entry)}) == entry


@given(entries, st.binary(min_size=1, max_size=10))
def test_what_a_later_version_adds_is_ignored(entry: LogEntry, more: bytes) -> None:
    entry_id = (entry.attempt, entry.number)
    assert decode(entry_id, {FIELD: encode(entry) + more, b"later": more}) == entry


@pytest.mark.parametrize(
    "fields",
    [{}, {FIELD: b""}, {FIELD: b"\x09" + bytes(40)}, {FIELD: encode(LogEntry(1, 1, 0, "ab"))[:-1]}],
    ids=["none", "empty", "unknown version", "cut off"],
)
def test_an_entry_that_cannot_be_read_is_refused(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(LogUnavailable):
        decode((1, 1), fields)


def test_a_typical_entry_is_small() -> None:
    assert len(encode(LogEntry(1, 9, 120, " token", (4093,)))) < 32
