"""The event parser: what the HTML standard says of lines, and a bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_loadtest.sse import MAX_EVENT_BYTES, Event, EventParser, EventTooLong


def parse(*lines: bytes) -> list[Event]:
    parser = EventParser()
    return [event for line in lines if (event := parser.line(line)) is not None]


def test_an_event_has_its_type_data_and_id() -> None:
    assert parse(b"event: delta\n", b"id: 12\n", b'data: {"text":"a"}\n', b"\n") == [
        Event("delta", '{"text":"a"}', "12")
    ]


def test_comments_and_events_without_data_give_nothing() -> None:
    assert parse(b": keep-alive\n", b"\n", b"event: x\n", b"\n", b"data: y\n", b"\n") == [
        Event("message", "y", "")
    ]


def test_several_data_lines_are_joined_and_an_id_stays_in_force() -> None:
    assert parse(
        b"id: 1\r\n", b"data: a\r\n", b"data:b\r\n", b"\r\n", b"data:\r\n", b"data\r\n", b"\r\n"
    ) == [Event("message", "a\nb", "1"), Event("message", "\n", "1")]


def test_an_endless_event_is_refused() -> None:
    parser = EventParser()
    line = b"data: " + b"x" * 1_000_000
    for _ in range(MAX_EVENT_BYTES // 1_000_000):
        parser.line(line)
    with pytest.raises(EventTooLong):
        parser.line(line)


@given(
    st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n", codec="utf-8")), min_size=1)
)
def test_whatever_was_sent_is_read(texts: list[str]) -> None:
    lines = [line for text in texts for line in (f"data: {text}".encode(), b"")]
    assert [event.data for event in parse(*lines)] == texts
