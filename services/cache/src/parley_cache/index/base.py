"""What the semantic tier asks of an index of vectors.

An index only *nominates*: what it gives is read again from the store and judged
there, so one that is stale, approximate or lacks items costs misses and nothing
else. Items live in *spaces*: a space is a partition, a context fingerprint and an
embedding model, and nothing is ever sought across two of them.

`local.LocalIndex`, `followed.FollowedIndex` (the former kept alike on all
replicas) and `vector_sets.VectorSetIndex` keep the same promises; one conformance
suite runs against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""Unit length, shape (dimensions,)."""

CANARY = "canary"
"""Tenant of the canaries of `checked`; no `keys.tenant_name` is like it."""


class IndexUnavailable(Exception):
    """The index cannot answer; `reason` is a stable snake_case word."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item is."""

    tenant: str
    """A `keys.tenant_name`."""
    space: str
    """A `keys.space_name`."""
    entry_id: str


@dataclass(frozen=True, slots=True)
class Item:
    """A stored question's vector in its place."""

    place: Place
    vector: Vector


@dataclass(frozen=True, slots=True)
class Nominee:
    """A neighbour; `similarity` is the index's own estimate of the cosine."""

    entry_id: str
    similarity: float


class VectorIndex(Protocol):
    """Vectors by space. Every method may raise `IndexUnavailable`."""

    async def add(self, item: Item) -> bool:
        """Take an item in, over any of the same place. False: refused, there is no room.

        Raises:
            ValueError: the vector has another shape, or is no unit vector.
        """
        ...

    async def remove(self, places: Sequence[Place]) -> None:
        """Forget items; those that are not there are no error."""
        ...

    async def drop(self, tenant: str) -> None:
        """Forget all items of a tenant."""
        ...

    async def holds(self, tenant: str, space: str) -> bool:
        """Whether a space has any item: where it has none, no vector is needed to seek in it."""
        ...

    async def nearest(self, tenant: str, space: str, vector: Vector, k: int) -> Sequence[Nominee]:
        """Give at most `k` items of a space, the most similar first."""
        ...

    async def count(self) -> int:
        """Say how many items are held, as far as this replica knows."""
        ...

    async def close(self) -> None:
        """Give back what is held."""
        ...


def checked(vector: Vector, dimensions: int) -> Vector:
    """Give the vector as the index keeps it.

    Raises:
        ValueError: of another shape, not finite, or not of unit length.
    """
    if vector.shape != (dimensions,):
        raise ValueError(f"a vector of shape ({dimensions},) was expected, not {vector.shape}")
    length = float(np.linalg.norm(vector))
    # Written so that a NaN is refused as well.
    if not abs(length - 1.0) < 1e-2:
        raise ValueError("the vector is not of unit length")
    return np.ascontiguousarray(vector, dtype=np.float32)
