"""The index in Redis' vector sets (Redis 8 and later).

One set a space, in the tenant's slot. Redis searches; every replica sees the same
sets at once, and nothing is held or rebuilt here.

    P:{T}:v:<space>   vector set   ids and vectors (8 bits a dimension)
    P:{T}:v           set          the tenant's spaces
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from redis.exceptions import ResponseError

from parley_cache.index.base import IndexUnavailable, Item, Nominee, Place, Vector, checked
from parley_cache.store.base import StoreError
from parley_cache.store.redis_client import Client, translated

_PAGE = 256


class VectorSetIndex:
    """A `VectorIndex` in Redis.

    Args:
        client: from `redis_client.open_client`; the index does not close it.
        dimensions: of every vector.
        prefix: of every key.
        max_items: of one space; more are refused.
        life_seconds: how long a space outlives its last addition; above the
            longest time for which an answer may be served.
    """

    def __init__(
        self,
        client: Client,
        dimensions: int,
        *,
        prefix: str = "parley:cache",
        max_items: int = 200_000,
        life_seconds: float = 40 * 86_400.0,
    ) -> None:
        self._client = client
        self._dimensions = dimensions
        self._prefix = prefix
        self._max_items = max_items
        self._life = int(life_seconds * 1000)

    async def probe(self) -> None:
        """Return when this Redis has vector sets.

        Raises:
            IndexUnavailable: `vector_sets_missing`, or Redis is away.
        """
        try:
            with _told():
                await self._client.execute_command("VCARD", f"{self._prefix}:v")
        except IndexUnavailable as error:
            if error.reason != "index_refused":
                raise
            raise IndexUnavailable(
                "vector_sets_missing", "this Redis has no vector sets"
            ) from error

    async def add(self, item: Item) -> bool:
        """Take an item in."""
        vector = checked(item.vector, self._dimensions)
        place = item.place
        key = self._key(place.tenant, place.space)
        with _told():
            if int(await self._client.execute_command("VCARD", key)) >= self._max_items:
                return False
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.execute_command("VADD", key, "FP32", _blob(vector), place.entry_id)
                pipe.execute_command("PEXPIRE", key, self._life)
                pipe.execute_command("SADD", self._spaces(place.tenant), place.space)
                pipe.execute_command("PEXPIRE", self._spaces(place.tenant), self._life)
                await pipe.execute()
        return True

    async def remove(self, places: Sequence[Place]) -> None:
        """Forget items."""
        for start in range(0, len(places), _PAGE):
            with _told():
                async with self._client.pipeline(transaction=False) as pipe:
                    for place in places[start : start + _PAGE]:
                        key = self._key(place.tenant, place.space)
                        pipe.execute_command("VREM", key, place.entry_id)
                    await pipe.execute()

    async def drop(self, tenant: str) -> None:
        """Forget all items of a tenant, in bounded steps."""
        spaces = self._spaces(tenant)
        with _told():
            while page := await self._client.execute_command("SPOP", spaces, _PAGE):
                keys = [self._key(tenant, raw.decode()) for raw in page]
                await self._client.execute_command("UNLINK", *keys)

    async def nearest(self, tenant: str, space: str, vector: Vector, k: int) -> Sequence[Nominee]:
        """Give the nearest of a space."""
        sought = checked(vector, self._dimensions)
        if k <= 0:
            return ()
        with _told():
            reply = await self._client.execute_command(
                *("VSIM", self._key(tenant, space), "FP32", _blob(sought)),
                *("WITHSCORES", "COUNT", k),
            )
        # A mapping with RESP3, and by redis-py's own parsing; else a flat list.
        pairs = reply.items() if isinstance(reply, dict) else zip(*[iter(reply)] * 2, strict=True)
        # Redis gives (1 + cosine) / 2.
        found = [Nominee(name.decode(), 2 * float(score) - 1) for name, score in pairs]
        return sorted(found, key=lambda nominee: -nominee.similarity)

    async def count(self) -> int:
        """Items of all tenants: a walk over them, for tests and reports."""
        counts: dict[bytes, int] = defaultdict(int)
        with _told():
            async for key in self._client.scan_iter(f"{self._prefix}:{{*}}:v:*", count=1000):
                counts[key] = int(await self._client.execute_command("VCARD", key))
        return sum(counts.values())

    async def close(self) -> None:
        """Nothing to give back."""

    def _spaces(self, tenant: str) -> str:
        return f"{self._prefix}:{{{tenant}}}:v"

    def _key(self, tenant: str, space: str) -> str:
        return f"{self._prefix}:{{{tenant}}}:v:{space}"


def _blob(vector: Vector) -> bytes:
    return vector.astype(np.dtype("<f4")).tobytes()


@contextmanager
def _told() -> Iterator[None]:
    """Turn what Redis says into the index's error."""
    try:
        with translated():
            yield
    except StoreError as error:
        cause = error.__cause__
        reason = "index_refused" if isinstance(cause, ResponseError) else "index_unavailable"
        raise IndexUnavailable(reason, str(error)) from error
