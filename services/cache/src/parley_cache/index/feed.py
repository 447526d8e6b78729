"""Additions and removals as a Redis stream, which every replica follows.

It is bounded, so a replica that was away too long finds a gap and must compare its
index with the store instead (`Gap`). Losing events costs misses, nothing else.

    P:index   stream   o (add, remove, drop), t tenant, s space, i id, v vector, b by whom
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parley_cache.index.base import Item, Place, Vector
from parley_cache.store.redis_client import Client, translated

MAX_EVENTS = 16_384
"""Kept about; with vectors of 384 dimensions some 25 MiB."""
_PAGE = 256
_NOTHING = np.zeros(0, dtype=np.float32)


class Gap(Exception):
    """Events were dropped before they were read."""


class Change(enum.Enum):
    """What an event tells."""

    ADD = "add"
    REMOVE = "remove"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Event:
    """A change; of `DROP` only the place's tenant is meant."""

    change: Change
    place: Place
    vector: Vector
    by: str

    @property
    def item(self) -> Item:
        """What is added."""
        return Item(self.place, self.vector)


class Feed:
    """Publishes events and reads those of others.

    Args:
        client: from `redis_client.open_client`.
        prefix: of every key.
        name: of this replica.
    """

    def __init__(self, client: Client, prefix: str, name: str) -> None:
        self._client = client
        self._key = f"{prefix}:index"
        self.name = name

    async def publish(self, change: Change, places: Sequence[Place], vector: Vector) -> None:
        """Tell the others. Raises StoreError."""
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                for place in places:
                    pipe.execute_command(
                        *("XADD", self._key, "MAXLEN", "~", MAX_EVENTS, "*"),
                        *("o", change.value, "t", place.tenant, "s", place.space),
                        *("i", place.entry_id, "v", vector.astype("<f4").tobytes()),
                        *("b", self.name),
                    )
                await pipe.execute()

    async def tip(self) -> str:
        """Name the newest event, to read on from. Raises StoreError."""
        with translated():
            found = await self._client.execute_command("XREVRANGE", self._key, "+", "-", "COUNT", 1)
        return found[0][0].decode() if found else "0-0"

    async def read(self, after: str, seconds: float) -> tuple[str, list[Event]]:
        """Wait so long for events after one that is named; give the last's name and them.

        Raises:
            Gap: some may be lost.
            StoreError: Redis is away, or does not answer.
        """
        # By a time-out of its own, as Redis may hang: a moment more than it is asked to wait.
        with translated():
            async with asyncio.timeout(seconds + 2.0):
                reply = await self._client.execute_command(
                    *("XREAD", "COUNT", _PAGE, "BLOCK", max(1, int(seconds * 1000))),
                    *("STREAMS", self._key, after),
                )
                # Afterwards: events may be dropped while the reading waits.
                oldest = await self._client.execute_command(
                    "XRANGE", self._key, "-", "+", "COUNT", 1
                )
        # Where nothing was dropped, the one that was read last is still there.
        known = after != "0-0" and bool(reply) and bool(oldest)
        if known and _order(oldest[0][0].decode()) > _order(after):
            raise Gap
        events: list[Event] = []
        streams = reply.values() if isinstance(reply, dict) else [s[1] for s in reply or ()]
        for entries in streams:
            for raw_id, fields in _flat(entries):
                after = raw_id.decode()
                event = _event(fields)
                if event is not None:
                    events.append(event)
        return after, events


def _flat(entries: list[object]) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """One list of entries, whichever way the client nests them."""
    if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], tuple):
        return [entry for group in entries for entry in group]  # type: ignore[attr-defined]
    return entries  # type: ignore[return-value]


def _order(name: str) -> tuple[int, int]:
    first, _, second = name.partition("-")
    return int(first), int(second)


def _event(fields: dict[bytes, bytes]) -> Event | None:
    """Read an event; None: of another version, or damaged."""
    try:
        place = Place(fields[b"t"].decode(), fields[b"s"].decode(), fields[b"i"].decode())
        vector = np.frombuffer(fields[b"v"], dtype="<f4").astype(np.float32)
        return Event(Change(fields[b"o"].decode()), place, vector, fields[b"b"].decode())
    except (KeyError, ValueError, AttributeError, TypeError):
        return None


def no_vector() -> Vector:
    """For events that carry none."""
    return _NOTHING
