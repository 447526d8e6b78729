"""The semantic tier: a question that means the same as a stored one is given its answer.

Embed the question, have the index nominate, read each nominee again from the store,
prove that it belongs where the question does, and have the second check agree. The
proof is the exact tier's own key: made of the asker's partition, context and the
*stored* question, it must be the stored entry's name and check. An entry of another
user, model, prompt or conversation has another key, whatever the index says.

Near a question whose answer was rated down the bar is higher: for a day (of the last
rating) only a question in the same words is given a stored answer there. A score
cannot be that bar: whoever rated it down has shown that scores are wrong about it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from parley_cache import metrics
from parley_cache.guard import StoreGuard
from parley_cache.index.base import IndexUnavailable, Item, Nominee, Place, Vector, VectorIndex
from parley_cache.index.writer import IndexWriter
from parley_cache.keys import EntryKey, entry_key, space_name, tenant_name
from parley_cache.model import Entry, Meaning, Query, Recalled
from parley_cache.semantic.embedding import Embedder, EmbeddingError
from parley_cache.semantic.verdict import Candidate, PairJudge, SecondCheck, Verdict
from parley_cache.store.base import CacheStore, Removed, StoreUnavailable

_KEPT_VECTORS = 2_048
_INDEX_ERROR = 0.05
"""By how much an index may misstate a cosine: with 8 bits a dimension it is 0.02."""
_RAISED = "rated_down_nearby"
_SAME_WORDS = "same_words"


@dataclass(frozen=True, slots=True)
class TierRules:
    """How far the tier goes.

    Args:
        nominees: entries that a look-up compares at most.
        embedding_seconds: longest wait for one embedding.
        near: cosine from which a rated-down question counts as near.
        least_cosine: candidates below it are not compared, as the check would refuse them.
        judge_least: least estimate of the cross-encoder, where there is one.
        bars_seconds: longest reading of raised bars alone.
    """

    nominees: int = 8
    embedding_seconds: float = 0.1
    near: float = 0.8
    least_cosine: float = -1.0
    judge_least: float = 0.5
    bars_seconds: float = 0.25


@dataclass(frozen=True, slots=True)
class Sought:
    """What was found: `entry` with the verdict's reason, or why nothing was."""

    entry: Entry | None
    reason: str
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class _Pair:
    entry: Entry
    candidate: Candidate


class SemanticTier:
    """Seeks by meaning, and keeps the index told.

    Args:
        store: where entries are read again.
        guard: bounds each reading.
        index: nominates.
        writer: tells the index of what comes and goes.
        embedder: makes vectors.
        check: decides.
        rules: bounds.
        judge: asked after the check, where one is configured; it may only refuse.
    """

    def __init__(
        self,
        store: CacheStore,
        guard: StoreGuard,
        *,
        index: VectorIndex,
        writer: IndexWriter,
        embedder: Embedder,
        check: SecondCheck,
        rules: TierRules,
        judge: PairJudge | None = None,
    ) -> None:
        self._store = store
        self._guard = guard
        self._index = index
        self._writer = writer
        self._embedder = embedder
        self._check = check
        self._rules = rules
        self._judge = judge
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verdict")
        # A miss embeds its question, and the Store that follows needs it again.
        self._vectors: OrderedDict[str, Vector] = OrderedDict()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def seek(self, query: Query, *, seconds: float) -> Sought:
        """Look for an answer within so many seconds; every failure is a reason."""
        deadline = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._seek(query, deadline)
        except TimeoutError:
            return Sought(None, "semantic_timeout")
        except EmbeddingError as error:
            return Sought(None, error.reason)
        except IndexUnavailable as error:
            return Sought(None, error.reason)
        except StoreUnavailable:
            return Sought(None, "store_unavailable")

    async def _seek(self, query: Query, deadline: float) -> Sought:
        tenant = tenant_name(query.partition.tenant)
        space = self.space_of(query)
        # Most spaces are empty: those of a conversation's later turns are its own.
        if not await self._index.holds(tenant, space):
            return Sought(None, "not_found")
        began = time.perf_counter()
        vector = await self._embed(query.question)
        metrics.SEMANTIC_SECONDS.labels("embed").observe(time.perf_counter() - began)
        began = time.perf_counter()
        nominees = await self._index.nearest(tenant, space, vector, self._rules.nominees)
        metrics.SEMANTIC_SECONDS.labels("nominate").observe(time.perf_counter() - began)
        if not nominees:
            return Sought(None, "not_found")
        least = self._rules.least_cosine
        likeliest = max(nominee.similarity for nominee in nominees)
        # Most misses end here: what is far by far is not even read again.
        nominees = [one for one in nominees if one.similarity >= least - _INDEX_ERROR]
        if not nominees:
            return Sought(None, "not_similar", likeliest)
        async with self._guard.operation("recall", max(0.001, deadline - time.monotonic())):
            recalled, bars = await asyncio.gather(
                self._store.recall(tenant, [nominee.entry_id for nominee in nominees]),
                self._store.bars(tenant, space),
            )
        place = Place(tenant, space, "")
        pairs = self._proven(query, place, nominees, recalled, 4 * len(vector))
        if not pairs:
            return Sought(None, "candidates_gone")
        # Before texts are analysed: that takes a millisecond a text.
        cosines = np.array([pair.candidate.vector for pair in pairs]) @ vector.astype(np.float64)
        best = float(cosines.max())
        pairs = [pair for pair, cosine in zip(pairs, cosines, strict=True) if cosine >= least]
        if not pairs:
            return Sought(None, "not_similar", best)
        began = time.perf_counter()
        near = any(self._is_near(bar, vector) for bar in bars)
        sought = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._decide, query.question, vector, pairs, near
        )
        metrics.SEMANTIC_SECONDS.labels("check").observe(time.perf_counter() - began)
        return sought

    def _proven(
        self,
        query: Query,
        place: Place,
        nominees: Sequence[Nominee],
        recalled: Sequence[Recalled | None],
        size: int,
    ) -> list[_Pair]:
        """Keep what belongs where the question does; have the index forget the rest."""
        pairs: list[_Pair] = []
        dropped: Counter[str] = Counter()
        stale: list[Removed] = []
        for nominee, found in zip(nominees, recalled, strict=True):
            why = "gone" if found is None else self._misplaced(query, place.space, found, size)
            if found is None or why:
                dropped[why] += 1
                stale.append(Removed(place.tenant, place.space, nominee.entry_id))
                continue
            candidate = Candidate(
                found.entry.entry_id, found.meaning.question, _exactly(found.meaning.vector)
            )
            pairs.append(_Pair(found.entry, candidate))
        for why, count in dropped.items():
            metrics.DISMISSED.labels(why).inc(count)
        if stale:
            self._writer.forget(stale)
        return pairs

    def _misplaced(self, query: Query, space: str, found: Recalled, size: int) -> str:
        own = entry_key(dataclasses.replace(query, question=found.meaning.question))
        if own.entry_id != found.entry.entry_id or own.check != found.entry.check:
            return "collision"
        if found.meaning.space != space:
            return "other_model"
        return "" if _is_unit(found.meaning.vector, size) else "corrupt"

    def _decide(self, question: str, vector: Vector, pairs: list[_Pair], near: bool) -> Sought:
        """Choose. In a thread: a comparison takes about a millisecond."""
        candidates = [pair.candidate for pair in pairs]
        chosen, reason, cosine = self._choose(question, vector, candidates, near)
        entry = next((pair.entry for pair in pairs if pair.candidate is chosen), None)
        return Sought(entry, reason, cosine)

    def _choose(
        self, question: str, vector: Vector, candidates: Sequence[Candidate], near: bool
    ) -> tuple[Candidate | None, str, float | None]:
        exact = tuple(vector.astype(np.float64).tolist())
        chosen, verdict = self._check.choose(question, exact, candidates)
        if chosen is None or verdict is None:
            reason = verdict.reason if verdict is not None else "candidates_gone"
            return None, reason, verdict.cosine if verdict is not None else None
        refusal = self._refusal(question, chosen, verdict, near)
        if refusal:
            return None, refusal, verdict.cosine
        return chosen, verdict.reason, verdict.cosine

    async def same_as(
        self, query: Query, meaning: Meaning, others: Sequence[Meaning]
    ) -> tuple[str, str, float] | None:
        """Give the first of others that asks the same, with the verdict's reason and cosine.

        As strict as a look-up: raised bars and the cross-encoder count. Raises StoreError.
        """
        candidates = [
            Candidate(str(number), other.question, _exactly(other.vector))
            for number, other in enumerate(others)
            if other.space == meaning.space and _is_unit(other.vector, len(meaning.vector))
        ]
        if not candidates:
            return None
        tenant = tenant_name(query.partition.tenant)
        async with self._guard.operation("recall", self._rules.bars_seconds):
            bars = await self._store.bars(tenant, meaning.space)
        vector = np.frombuffer(meaning.vector, dtype="<f4").astype(np.float32)
        near = any(self._is_near(bar, vector) for bar in bars)
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._first, query.question, vector, candidates, near
        )

    def _first(
        self, question: str, vector: Vector, candidates: Sequence[Candidate], near: bool
    ) -> tuple[str, str, float] | None:
        """Compare with the nearest, in the order in which they were given."""
        likeness = np.array([one.vector for one in candidates]) @ vector
        for number in sorted(np.argsort(-likeness)[: self._rules.nominees]):
            chosen, reason, cosine = self._choose(question, vector, [candidates[number]], near)
            if chosen is not None:
                return chosen.question, reason, cosine or 0.0
        return None

    def space_of(self, query: Query) -> str:
        """Name what a question is comparable with."""
        return space_name(query, self._embedder.identity)

    def _refusal(self, question: str, chosen: Candidate, verdict: Verdict, near: bool) -> str:
        if near and verdict.reason != _SAME_WORDS:
            return _RAISED
        if self._judge is not None and verdict.reason != _SAME_WORDS:
            [estimate] = self._judge.judge(question, [chosen.question])
            # Written so that a NaN is refused as well.
            if not estimate >= self._rules.judge_least:
                return "cross_encoder"
        return ""

    def _is_near(self, bar: bytes, vector: Vector) -> bool:
        if len(bar) != 4 * len(vector):
            return False
        return float(np.frombuffer(bar, dtype="<f4") @ vector) >= self._rules.near

    def question_of(self, query: Query) -> Meaning:
        """Make what is known of a question without embedding it: its vector may be empty."""
        kept = self._vectors.get(_name(query.question))
        vector = b"" if kept is None else kept.astype("<f4").tobytes()
        return Meaning(space=self.space_of(query), question=query.question, vector=vector)

    async def embedded(self, meanings: Sequence[Meaning]) -> list[Meaning]:
        """Embed those that have no vector yet, of them the first few; the rest is left out."""
        bare = [meaning for meaning in meanings if not meaning.vector][: self._rules.nominees]
        vectors = await asyncio.gather(*(self._vector_of(meaning.question) for meaning in bare))
        made = {
            meaning.question: dataclasses.replace(meaning, vector=vector)
            for meaning, vector in zip(bare, vectors, strict=True)
            if vector
        }
        found = (meaning if meaning.vector else made.get(meaning.question) for meaning in meanings)
        return [meaning for meaning in found if meaning is not None]

    async def meaning_of(self, query: Query) -> Meaning | None:
        """Make what is kept beside an entry; None (counted) where it cannot be had in time."""
        vector = await self._vector_of(query.question)
        if not vector:
            return None
        return Meaning(space=self.space_of(query), question=query.question, vector=vector)

    async def _vector_of(self, question: str) -> bytes:
        """Embed for the store; empty (counted) where that cannot be done in time."""
        try:
            vector = await self._embed(question)
        except EmbeddingError as error:
            metrics.UNEMBEDDED.labels(error.reason).inc()
            return b""
        return vector.astype("<f4").tobytes()

    def learn(self, key: EntryKey, meaning: Meaning) -> None:
        """Have the index take in what was stored."""
        vector = np.frombuffer(meaning.vector, dtype="<f4").astype(np.float32)
        self._writer.add(Item(Place(key.tenant, meaning.space, key.entry_id), vector))

    async def _embed(self, question: str) -> Vector:
        name = _name(question)
        kept = self._vectors.get(name)
        if kept is not None:
            self._vectors.move_to_end(name)
            return kept
        vector = await self._embedder.embed(question, timeout=self._rules.embedding_seconds)
        self._vectors[name] = vector
        while len(self._vectors) > _KEPT_VECTORS:
            self._vectors.popitem(last=False)
        return vector


def _name(question: str) -> str:
    return hashlib.sha256(question.encode("utf-8", "replace")).hexdigest()


def _exactly(blob: bytes) -> tuple[float, ...]:
    return tuple(np.frombuffer(blob, dtype="<f4").astype(np.float64).tolist())


def _is_unit(blob: bytes, size: int) -> bool:
    if not blob or len(blob) != size:
        return False
    length = float(np.linalg.norm(np.frombuffer(blob, dtype="<f4")))
    return abs(length - 1.0) < 1e-2
