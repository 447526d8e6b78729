"""Parley's cache on a real Redis, with both of its indexes over one store."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from parley_cache.admission import AdmissionRules
from parley_cache.cache import AnswerCache
from parley_cache.guard import Breaker, StoreGuard
from parley_cache.index.base import VectorIndex
from parley_cache.index.feed import Feed
from parley_cache.index.filled import FilledIndex
from parley_cache.index.followed import FollowedIndex
from parley_cache.index.local import LocalIndex
from parley_cache.index.vector_sets import VectorSetIndex
from parley_cache.index.writer import IndexWriter
from parley_cache.keys import entry_key, space_name, tenant_name
from parley_cache.model import Entry, Meaning, Partition, Query, Scope, Sources
from parley_cache.semantic.calibration import read_calibration
from parley_cache.semantic.embedding import Embedder, Vector
from parley_cache.semantic.verdict import SecondCheck
from parley_cache.shelf_life import Expiry
from parley_cache.store.base import BarrierLives, Limits
from parley_cache.store.redis import RedisStore
from parley_cache.store.redis_client import open_client
from parley_cache.tier import SemanticTier, TierRules
from parley_cache.tier_bootstrap import StoreCatalogue
from parley_loadtest.cachebench.subjects.child import Work, answer, asked, question, serve
from parley_loadtest.cachebench.subjects.loading import Made, load

_LIFE = 86_400.0
_SECONDS = 60.0
_ROOMY = Limits(10**12, 10**9, 10**12, 10**9)
_NOMINEES = 8
_DIGEST = hashlib.sha256(b"bench").digest()


class _Known:
    """A model whose vectors are there already: embedding is not what is measured."""

    identity = "bench:0"
    vocabulary: frozenset[str] = frozenset()

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.vectors: dict[str, Vector] = {}

    def embed(self, texts: Sequence[str]) -> Vector:
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> Vector:
        if text in self.vectors:
            return self.vectors[text]
        # Of texts that only its self-test asks for.
        words = [word for word in text.lower().rstrip("?.").split() if len(word) > 4]
        seeds = (np.random.default_rng(zlib.crc32(word.encode())) for word in words)
        made = np.sum([numbers.normal(size=self.dimensions) for numbers in seeds], axis=0)
        return np.asarray(made / np.linalg.norm(made), dtype=np.float32)


def _query(text: str) -> Query:
    partition = Partition("bench", Scope.USER, "ann", "model", "r1", _DIGEST, _DIGEST)
    return Query(partition, _DIGEST, 0, text)


class Parley:
    """The cache over a store, with one tier for each index."""

    def __init__(self, folder: Path, url: str) -> None:
        self._work = Work.read(folder)
        self._loop = asyncio.new_event_loop()
        self._client = open_client(url, max_connections=64, connect_seconds=5.0)
        self._store = RedisStore(self._client, _ROOMY, BarrierLives(_LIFE, _LIFE), prefix="bench")
        self._guard = StoreGuard(Breaker(1_000, 1.0))
        self._model = _Known(self._work.dimensions)
        self._embedder = Embedder(self._model)
        self._indexes: dict[str, VectorIndex] = {}
        self._tiers: dict[str, SemanticTier] = {}
        self._caches: dict[str, AnswerCache] = {}
        self._truths: dict[int, list[int]] = {}

    async def _used(self) -> int:
        return int((await self._client.info("memory"))["used_memory"])

    def fill(self) -> Mapping[str, Any]:
        """Store all rows."""
        return self._loop.run_until_complete(self._fill())

    async def _fill(self) -> Mapping[str, Any]:
        before, began = await self._used(), time.perf_counter()
        rows = (self._made(row) for row in range(len(self._work.stored)))
        await load(self._store, self._client, "bench", rows)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "redis_bytes": await self._used() - before}

    def _made(self, row: int) -> Made:
        query, now = _query(question(row)), time.time()
        key = entry_key(query)
        entry = Entry(
            entry_id=key.entry_id,
            check=key.check,
            answer=answer(row),
            finish_reason="stop",
            prompt_tokens=20,
            completion_tokens=100,
            source_message_id=f"chat-{row}-1",
            source_chat_id=f"chat-{row}",
            stored_at=now,
            expires_at=now + _LIFE,
        )
        sources = Sources(entry.source_chat_id, entry.source_message_id, "ann", "model")
        vector = np.asarray(self._work.stored[row], dtype="<f4").tobytes()
        return key, entry, sources, Meaning(self._space(query), query.question, vector)

    def _space(self, query: Query) -> str:
        return space_name(query, self._model.identity)

    def build(self, index: str) -> Mapping[str, Any]:
        """Build an index from the store, as a replica does that starts."""
        return self._loop.run_until_complete(self._build(index))

    async def _build(self, name: str) -> Mapping[str, Any]:
        catalogue = StoreCatalogue(self._store)
        held, redis_held = psutil.Process().memory_info().rss, await self._used()
        began = time.perf_counter()
        index: VectorIndex
        if name == "local":
            local = LocalIndex(self._work.dimensions, max_items=2 * len(self._work.stored))
            followed = FollowedIndex(local, Feed(self._client, "bench", "bench"), catalogue)
            await followed.reconcile()
            index = followed
        else:
            sets = VectorSetIndex(
                self._client,
                self._work.dimensions,
                prefix="bench",
                max_items=2 * len(self._work.stored),
                life_seconds=_LIFE,
            )
            filled = FilledIndex(sets, catalogue)
            await filled.fill()
            index = filled
        seconds = time.perf_counter() - began
        await self._connect(name, index)
        return {
            "seconds": seconds,
            "items": await index.count(),
            "process_bytes": psutil.Process().memory_info().rss - held,
            "redis_bytes": await self._used() - redis_held,
        }

    async def _connect(self, name: str, index: VectorIndex) -> None:
        if not self._tiers:
            await self._embedder.start()
        calibration = read_calibration(None)
        tier = SemanticTier(
            self._store,
            self._guard,
            index=index,
            writer=IndexWriter(index),
            embedder=self._embedder,
            check=SecondCheck(calibration),
            rules=TierRules(
                nominees=_NOMINEES,
                embedding_seconds=_SECONDS,
                least_cosine=calibration.cosine_floor,
            ),
        )
        rules = AdmissionRules(allow_global=False, max_question_bytes=10**5, max_answer_bytes=10**6)
        self._indexes[name], self._tiers[name] = index, tier
        self._caches[name] = AnswerCache(
            self._store, self._guard, rules, Expiry(_LIFE, 0.0), tier=tier
        )

    def ask(self, index: str, first: int, count: int) -> Mapping[str, Any]:
        """Look questions up by meaning."""
        return self._loop.run_until_complete(self._ask(index, first, count))

    async def _ask(self, name: str, first: int, count: int) -> Mapping[str, Any]:
        cache, tier = self._caches[name], self._tiers[name]
        times, hits = [], 0
        for place in range(first, first + count):
            number = int(self._work.meant[place])
            query = _query(asked(number))
            self._model.vectors = {query.question: self._work.asked[place]}
            # Embedded before: the tier keeps the vectors of questions it was asked lately.
            await tier.meaning_of(query)
            began = time.perf_counter()
            found = await cache.lookup(query, seconds=_SECONDS, semantic=True)
            times.append(time.perf_counter() - began)
            hits += found.entry is not None and found.entry.answer == answer(number)
        return {"times": times, "hits": hits}

    def nominate(self, index: str, first: int, count: int) -> Mapping[str, Any]:
        """Ask the index alone; count how many of the true nearest it names."""
        return self._loop.run_until_complete(self._nominate(index, first, count))

    async def _nominate(self, name: str, first: int, count: int) -> Mapping[str, Any]:
        tenant, space = tenant_name("bench"), self._space(_query(""))
        names = {entry_key(_query(question(row))).entry_id: row for row in self._rows(first, count)}
        times, found = [], 0
        for place in range(first, first + count):
            vector = np.asarray(self._work.asked[place], dtype=np.float32)
            began = time.perf_counter()
            nominees = await self._indexes[name].nearest(tenant, space, vector, _NOMINEES)
            times.append(time.perf_counter() - began)
            found += len(
                set(self._truth(place)) & {names.get(one.entry_id, -1) for one in nominees}
            )
        return {"times": times, "found": found, "sought": count * _NOMINEES}

    def _truth(self, place: int) -> list[int]:
        """Rows of the true nearest, by brute force."""
        if place not in self._truths:
            likeness = self._work.stored @ self._work.asked[place]
            self._truths[place] = np.argpartition(-likeness, _NOMINEES)[:_NOMINEES].tolist()
        return self._truths[place]

    def _rows(self, first: int, count: int) -> set[int]:
        return {row for place in range(first, first + count) for row in self._truth(place)}


if __name__ == "__main__":
    subject = Parley(Path(sys.argv[1]), sys.argv[2])
    serve(
        {
            "fill": subject.fill,
            "build": subject.build,
            "ask": subject.ask,
            "nominate": subject.nominate,
        }
    )
