"""The index in Redis' vector sets (Redis 8 and later).

One set a space, in the tenant's slot. Redis searches, and every replica sees the same
sets at once; `filled.FilledIndex` adds what they lack.

    P:{T}:v:<space>   vector set   ids and vectors (8 bits a dimension)
    P:{T}:v           set          the tenant's spaces
    P:v:turn          string       how far they are filled, while a replica has its turn
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

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
        return await self._put(item.place.tenant, item.place.space, {item.place.entry_id: vector})

    async def add_all(self, items: Sequence[Item]) -> dict[str, int]:
        """Take many in, passing over vectors of another shape; count `added` and `refused`."""
        by_space: dict[tuple[str, str], dict[str, Vector]] = defaultdict(dict)
        for item in items:
            with suppress(ValueError):
                vector = checked(item.vector, self._dimensions)
                by_space[item.place.tenant, item.place.space][item.place.entry_id] = vector
        added = 0
        for (tenant, space), vectors in by_space.items():
            added += len(vectors) if await self._put(tenant, space, vectors) else 0
        return {"added": added, "refused": len(items) - added}

    async def _put(self, tenant: str, space: str, vectors: Mapping[str, Vector]) -> bool:
        """Add vectors of one space by id; False: there is no room for all of them."""
        key = self._key(tenant, space)
        with _told():
            held = int(await self._client.execute_command("VCARD", key))
            if held + len(vectors) > self._max_items:
                return False
            async with self._client.pipeline(transaction=False) as pipe:
                for entry_id, vector in vectors.items():
                    # CAS: neighbours are sought in a thread, where Redis answers others.
                    pipe.execute_command("VADD", key, "FP32", _blob(vector), entry_id, "CAS")
                pipe.execute_command("PEXPIRE", key, self._life)
                pipe.execute_command("SADD", self._spaces(tenant), space)
                pipe.execute_command("PEXPIRE", self._spaces(tenant), self._life)
                await pipe.execute()
        return True

    async def missing(self, items: Sequence[Item]) -> Sequence[Item]:
        """Give those that are not held."""
        if not items:
            return ()
        with _told():
            async with self._client.pipeline(transaction=False) as pipe:
                for item in items:
                    key = self._key(item.place.tenant, item.place.space)
                    pipe.execute_command("VISMEMBER", key, item.place.entry_id)
                held = await pipe.execute()
        return [item for item, there in zip(items, held, strict=True) if not there]

    async def take_turn(self, seconds: float) -> float | None:
        """Take the turn of filling for so long; else give how far another has come, 0 to 1."""
        with _told():
            if await self._client.execute_command(
                *("SET", self._turn, "0", "NX", "PX", int(seconds * 1000))
            ):
                return None
            progress = await self._client.execute_command("GET", self._turn)
        try:
            return float(progress or 0)
        except ValueError:
            return 0.0

    async def tell_turn(self, progress: float, seconds: float) -> None:
        """Say how far one has come, and keep the turn for so long."""
        with _told():
            await self._client.execute_command(
                *("SET", self._turn, f"{progress:.4f}", "PX", int(seconds * 1000))
            )

    @property
    def _turn(self) -> str:
        return f"{self._prefix}:v:turn"

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

    async def holds(self, tenant: str, space: str) -> bool:
        """Whether a space has any item."""
        with _told():
            # An empty set is none: Redis removes it.
            return bool(await self._client.execute_command("EXISTS", self._key(tenant, space)))

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
