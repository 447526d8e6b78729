"""redisvl's SemanticCache with its defaults, on a Redis that has search commands."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from redisvl.extensions.cache.llm import SemanticCache
from redisvl.extensions.cache.llm.schema import CacheEntry
from redisvl.utils.vectorize import CustomVectorizer

from parley_loadtest.cachebench.subjects.child import Work, answer, asked, question, serve

# Cosine distance; near questions are nearer than this.
_THRESHOLD = 0.2
_BATCH = 500


class RedisVl:
    """One cache on a server of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self._work = Work.read(folder)
        self._redis = redis.Redis.from_url(url)
        first = self._work.stored[0].tolist()
        self._cache = SemanticCache(
            name="bench",
            distance_threshold=_THRESHOLD,
            # Every vector is given; this only tells the dimensions.
            vectorizer=CustomVectorizer(embed=lambda _text, **_more: first),
            redis_client=self._redis,
            overwrite=True,
        )

    def _used(self) -> int:
        return int(self._redis.info("memory")["used_memory"])

    def build(self) -> Mapping[str, Any]:
        """Store all rows."""
        before, began = self._used(), time.perf_counter()
        for start in range(0, len(self._work.stored), _BATCH):
            rows = range(start, min(start + _BATCH, len(self._work.stored)))
            # As its `store` does, but many at a time.
            self._cache._index.load([self._entry(row) for row in rows], id_field="entry_id")
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "redis_bytes": self._used() - before}

    def _entry(self, row: int) -> dict[str, Any]:
        made = CacheEntry(
            entry_id=str(row),
            prompt=question(row),
            response=answer(row),
            prompt_vector=self._work.stored[row].tolist(),
        )
        found: dict[str, Any] = made.to_dict("float32")
        return found

    def ask(self, first: int, count: int) -> Mapping[str, Any]:
        """Look questions up."""
        times, hits = [], 0
        for place in range(first, first + count):
            number = int(self._work.meant[place])
            vector = self._work.asked[place].tolist()
            began = time.perf_counter()
            found = self._cache.check(prompt=asked(number), vector=vector)
            times.append(time.perf_counter() - began)
            hits += bool(found) and found[0]["response"] == answer(number)
        return {"times": times, "hits": hits}


if __name__ == "__main__":
    subject = RedisVl(Path(sys.argv[1]), sys.argv[2])
    serve({"build": subject.build, "ask": subject.ask})
