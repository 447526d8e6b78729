"""The real embedding model for tests, fetched once a checkout; and a stand-in for it."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from parley_cache.semantic.embedding import OnnxModel, Vector
from parley_devstack.embedding_model import embedding_folder, make_embedding_model, run_plainly
from parley_devstack.paths import checkout

PAIRS = Path(__file__).parent.parent / "data" / "semantic" / "pairs.tsv"


def embedding_model_folder() -> Path:
    """Returns the model's folder; several test processes may ask at once."""
    named = os.environ.get("PARLEY_CACHE_EMBEDDING_MODEL", "")
    if named:
        return Path(named)
    paths = checkout()
    folder = embedding_folder(paths)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".embedding.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return make_embedding_model(paths, run_plainly)


@pytest.fixture(scope="session")
def embedding_model() -> OnnxModel:
    """MiniLM, as the service runs it."""
    return OnnxModel(embedding_model_folder())


class WordModel:
    """A stand-in: a text is the sum of its words' pseudo-random vectors. Counts its calls."""

    def __init__(self, dimensions: int = 64) -> None:
        self._dimensions = dimensions
        self.batches: list[int] = []

    @property
    def identity(self) -> str:
        return "words:0"

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def vocabulary(self) -> frozenset[str]:
        return frozenset()

    def embed(self, texts: Sequence[str]) -> Vector:
        self.batches.append(len(texts))
        rows = np.stack([self._one(text) for text in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)

    def _one(self, text: str) -> np.ndarray:
        total = np.full(self._dimensions, 1e-6)
        words = text.lower().replace("?", "").replace(".", "").split()
        # Short words say little: without them paraphrases are near, as with a real model.
        for word in [w for w in words if len(w) > 4 or w.isdigit()] or words:
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4])
            total += np.random.default_rng(seed).normal(size=self._dimensions)
        return total
