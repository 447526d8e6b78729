"""Server-sent events, line by line, as the HTML standard says, within bounds."""

from __future__ import annotations

from dataclasses import dataclass

MAX_EVENT_BYTES = 4 * 1024 * 1024


class EventTooLong(ValueError):
    """An event is longer than `MAX_EVENT_BYTES`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its type, its joined data, and the id in force."""

    type: str
    data: str
    id: str


class EventParser:
    """Takes lines, gives events."""

    def __init__(self) -> None:
        self._type = ""
        self._id = ""
        self._data: list[bytes] = []
        self._size = 0

    def line(self, raw: bytes) -> Event | None:
        """Take one line, its line end included or not; give the event that it ends, if any.

        Raises:
            EventTooLong: more data than any answer has.
        """
        line = raw.rstrip(b"\r\n")
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value) + 1
            if self._size > MAX_EVENT_BYTES:
                raise EventTooLong(f"an event of more than {MAX_EVENT_BYTES} bytes")
            self._data.append(value)
        elif field == b"event":
            self._type = value.decode()
        elif field == b"id" and b"\x00" not in value:
            self._id = value.decode()
        return None

    def _dispatch(self) -> Event | None:
        data, kind = self._data, self._type
        self._data, self._type, self._size = [], "", 0
        if not data:
            return None
        return Event(kind or "message", b"\n".join(data).decode(), self._id)
