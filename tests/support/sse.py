"""Reading server-sent events in tests."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Event:
    name: str
    id: str
    data: Any


def parse(block: str) -> Event:
    """Read one event's lines."""
    fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
    return Event(fields["event"], fields["id"], json.loads(fields["data"]))


async def events(response: httpx.Response) -> AsyncIterator[Event]:
    """Yield the events of a response as they come; comments are left out."""
    rest = ""
    async for text in response.aiter_text():
        rest += text
        while "\n\n" in rest:
            block, rest = rest.split("\n\n", 1)
            if not block.startswith(":"):
                yield parse(block)
    assert not rest


def joined_text(seen: list[Event]) -> str:
    """Join the answer that deltas make; asserts that each id is the byte offset so far."""
    text = ""
    for event in seen:
        if event.name == "delta":
            text += event.data["text"]
            assert event.id == str(len(text.encode())), event
    return text
