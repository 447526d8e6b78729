"""GPTCache, put together as its documentation does: SQLite, Faiss, distance evaluation."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gptcache import Cache
from gptcache.adapter import api
from gptcache.manager import CacheBase, VectorBase, get_data_manager
from gptcache.processor.pre import get_prompt
from gptcache.similarity_evaluation.distance import SearchDistanceEvaluation

from parley_loadtest.cachebench.subjects.child import Work, answer, asked, question, serve

_BATCH = 1_000


class GptCache:
    """One cache over a folder."""

    def __init__(self, folder: Path) -> None:
        self._work = Work.read(folder)
        self._ready: dict[str, Any] = {}
        data = folder / "gptcache"
        data.mkdir()
        self._manager = get_data_manager(
            CacheBase("sqlite", sql_url=f"sqlite:///{data / 'cache.db'}"),
            VectorBase("faiss", dimension=self._work.dimensions, index_path=str(data / "faiss")),
            max_size=10**9,
        )
        self._cache = Cache()
        self._cache.init(
            pre_embedding_func=get_prompt,
            # The vectors are there already: embedding is not what is measured.
            embedding_func=lambda text, **_: self._ready[text],
            data_manager=self._manager,
            similarity_evaluation=SearchDistanceEvaluation(),
        )

    def build(self) -> Mapping[str, Any]:
        """Store all rows."""
        began = time.perf_counter()
        for start in range(0, len(self._work.stored), _BATCH):
            rows = range(start, min(start + _BATCH, len(self._work.stored)))
            self._manager.import_data(
                [question(row) for row in rows],
                [answer(row) for row in rows],
                [np.asarray(self._work.stored[row]) for row in rows],
                [None for _ in rows],
            )
        return {"seconds": time.perf_counter() - began}

    def ask(self, first: int, count: int) -> Mapping[str, Any]:
        """Look questions up."""
        times, hits = [], 0
        for place in range(first, first + count):
            number = int(self._work.meant[place])
            text = asked(number)
            self._ready = {text: self._work.asked[place]}
            began = time.perf_counter()
            found = api.get(text, cache_obj=self._cache)
            times.append(time.perf_counter() - began)
            hits += found == answer(number)
        return {"times": times, "hits": hits}


if __name__ == "__main__":
    subject = GptCache(Path(sys.argv[1]))
    serve({"build": subject.build, "ask": subject.ask})
