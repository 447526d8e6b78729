"""Reads the server-sent events of an upstream: whole, bounded, and judged.

Only what the dialect sends is understood: ``data:`` lines, comments, empty lines. An event may
arrive in pieces or together with others; one that is too long, or no JSON object, ends the stream.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

MAX_EVENT_BYTES: Final = 256 * 1024


class BadFrame(Exception):
    """What arrived is not an event of this dialect."""


class Frames:
    """Cuts bytes into events. ``done``: the upstream has said that no more follow."""

    def __init__(self) -> None:
        self._rest = b""
        self.done = False

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The events that ``data`` completes. Raises BadFrame."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise BadFrame("the upstream sent an event without end")
        for line in lines:
            if len(line) > MAX_EVENT_BYTES:
                raise BadFrame("the upstream sent an event that is too long")
            if self.done or not line.startswith(b"data:"):
                if not self.done and line.strip() and not _is_field(line):
                    raise BadFrame("the upstream sent what is no event")
                continue
            payload = line[5:].strip()
            if payload == b"[DONE]":
                self.done = True
            elif payload:
                yield _parse(payload)


def _is_field(line: bytes) -> bool:
    """Comments and the fields of events that carry nothing for us."""
    return line.startswith((b":", b"event:", b"id:", b"retry:"))


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BadFrame("the upstream sent an event that is no JSON") from error
    if not isinstance(event, dict):
        raise BadFrame("the upstream sent an event that is no object")
    return event
