"""A small embedding model for tests, and a cache whose semantic tier runs on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parley_cache.admission import AdmissionRules
from parley_cache.cache import AnswerCache
from parley_cache.crowd import Crowd
from parley_cache.flight import FlightRules, SingleFlight
from parley_cache.guard import Breaker, StoreGuard
from parley_cache.index.local import LocalIndex
from parley_cache.index.writer import IndexWriter
from parley_cache.model import Offer, Query
from parley_cache.semantic.calibration import Calibration
from parley_cache.semantic.embedding import Embedder, Vector
from parley_cache.semantic.score import FEATURES
from parley_cache.semantic.verdict import PairJudge, SecondCheck
from parley_cache.shelf_life import Expiry
from parley_cache.store.base import CacheStore, Limits
from parley_cache.store.memory import MemoryStore
from parley_cache.tier import SemanticTier, TierRules
from support.cache_store import LIVES, Clock

DIMENSIONS = 128
_NOISE = frozenset(
    (
        "a",
        "an",
        "the",
        "of",
        "to",
        "is",
        "are",
        "do",
        "does",
        "i",
        "we",
        "it",
        "how",
        "what",
        "way",
        "can",
        "in",
        "my",
        "me",
        "for",
    )
)


class WordModel:
    """Words as directions: texts that share their words are near. Deterministic."""

    def __init__(self, identity: str = "words:1") -> None:
        self.identity = identity
        self.dimensions = DIMENSIONS
        self.vocabulary: frozenset[str] = frozenset()
        self.fault: Exception | None = None
        self.texts = 0

    def embed(self, texts: Sequence[str]) -> Vector:
        if self.fault is not None:
            raise self.fault
        self.texts += len(texts)
        rows = np.array([_row(text) for text in texts], dtype=np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _row(text: str) -> list[float]:
    row = np.full(DIMENSIONS, 1e-3)
    words = [word for word in re.findall(r"\w+", text.lower()) if word not in _NOISE]
    for word in words or ["nothing"]:
        numbers = np.random.default_rng(zlib.crc32(word.encode()))
        row += numbers.normal(size=DIMENSIONS)
    return [float(value) for value in row]


def calibration(model: WordModel) -> Calibration:
    """One that serves what no rule keeps apart, from a cosine of about 0.5."""
    weights = tuple(8.0 if name == "cosine" else 0.0 for name in FEATURES)
    return Calibration(model.identity, weights, -4.0, 0.5, 0.0, {"set": "made up for tests"})


def write_calibration(path: Path, model: WordModel) -> Path:
    calibration(model).write(path)
    assert json.loads(path.read_text())["model"] == model.identity
    return path


@dataclass
class World:
    """A cache with both tiers on an in-memory store."""

    cache: AnswerCache
    store: CacheStore
    index: LocalIndex
    writer: IndexWriter
    embedder: Embedder
    model: WordModel
    clock: Clock


@contextlib.asynccontextmanager
async def semantic_world(
    store: CacheStore | None = None,
    model: WordModel | None = None,
    *,
    judge: PairJudge | None = None,
    least_askers: int = 3,
    expiry: Expiry | None = None,
    clock: Clock | None = None,
    **rules: float,
) -> AsyncIterator[World]:
    """Gives a cache with both tiers; `rules` are those of the tier."""
    model, clock = model or WordModel(), clock or Clock()
    store = store or MemoryStore(Limits(10**9, 10**6, 10**9, 10**6), LIVES, clock)
    guard = StoreGuard(Breaker(5, 0.05))
    embedder = Embedder(model)
    await embedder.start()
    index = LocalIndex(model.dimensions)
    writer = IndexWriter(index)
    await writer.start()
    store.listen(writer.forget)
    tier = SemanticTier(
        store,
        guard,
        index=index,
        writer=writer,
        embedder=embedder,
        check=SecondCheck(calibration(model)),
        judge=judge,
        rules=TierRules(embedding_seconds=5.0, **rules),  # type: ignore[arg-type]
    )
    admission = AdmissionRules(
        allow_global=True, max_question_bytes=200_000, max_answer_bytes=100_000
    )
    cache = AnswerCache(
        store,
        guard,
        admission,
        expiry or Expiry(1000.0, 0.0),
        tier=tier,
        flight=SingleFlight(store, guard, FlightRules(), Crowd(store, guard, tier, 5.0)),
        least_askers=least_askers,
        clock=clock,
    )
    try:
        yield World(cache, store, index, writer, embedder, model, clock)
    finally:
        await writer.stop()
        tier.close()
        await asyncio.gather(embedder.stop(), index.close())


def offer(query: Query, answer: str = "An answer.", **changes: object) -> Offer:
    values: dict[str, object] = {
        "query": query,
        "answer": answer,
        "finish_reason": "stop",
        "prompt_tokens": 7,
        "completion_tokens": 4,
        "source_message_id": "chat-1-1",
        "source_chat_id": "chat-1",
        "source_user": query.partition.user or "ann",
        "temperature": 0.0,
        "seeded": False,
        "stamp": "",
        **changes,
    }
    return Offer(**values)  # type: ignore[arg-type]
