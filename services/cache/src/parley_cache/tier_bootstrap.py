"""Builds the semantic tier, where its model is there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from parley_cache import metrics
from parley_cache.config import CacheSettings
from parley_cache.guard import StoreGuard
from parley_cache.index.base import Item, Place
from parley_cache.index.checked import CheckedIndex, Starting
from parley_cache.index.feed import Feed
from parley_cache.index.filled import FilledIndex
from parley_cache.index.followed import FollowedIndex
from parley_cache.index.local import LocalIndex
from parley_cache.index.vector_sets import VectorSetIndex
from parley_cache.index.writer import IndexWriter
from parley_cache.semantic.calibration import CalibrationError, read_calibration
from parley_cache.semantic.cross_encoder import OnnxCrossEncoder
from parley_cache.semantic.embedding import Embedder, Model, ModelError, OnnxModel
from parley_cache.semantic.judge.trained import TrainedJudge
from parley_cache.semantic.verdict import SecondCheck
from parley_cache.store.base import CacheStore
from parley_cache.store.redis_client import Client, open_client
from parley_cache.tier import SemanticTier, TierRules
from parley_kit.errors import StartupError

_log = logging.getLogger(__name__)


class StoreCatalogue:
    """What the store holds, as the index is compared with it."""

    def __init__(self, store: CacheStore) -> None:
        self._store = store

    async def tenants(self) -> Mapping[str, int]:
        """Name the tenants that hold entries."""
        return await self._store.tenants()

    def ids(self, tenant: str) -> AsyncIterator[Sequence[str]]:
        """Page through the ids of a tenant's entries."""
        return self._store.ids(tenant)

    async def items(self, tenant: str, ids: Sequence[str]) -> Sequence[Item]:
        """Read places and vectors; what is no vector is left out."""
        meanings = await self._store.meanings(tenant, ids)
        return [
            Item(
                Place(tenant, meaning.space, entry_id),
                np.frombuffer(meaning.vector, dtype="<f4").astype(np.float32),
            )
            for entry_id, meaning in meanings.items()
            if meaning.vector and len(meaning.vector) % 4 == 0
        ]


@contextlib.asynccontextmanager
async def semantic_tier(
    settings: CacheSettings, store: CacheStore, guard: StoreGuard, model: Model | None = None
) -> AsyncIterator[SemanticTier | None]:
    """Give the tier while the block runs; None where it is off or its model is not there.

    Args:
        settings: from the environment.
        store: where entries are kept.
        guard: bounds each reading of it.
        model: another than the one in `embedding_model`, for tests.

    Raises:
        StartupError: it is to be on, and cannot be.
    """
    metrics.SEMANTIC.set(0)
    try:
        loaded = await asyncio.to_thread(_load, settings, model)
        embedder = Embedder(loaded[0]) if loaded else None
        if embedder is not None:
            await embedder.start()
    except (ModelError, CalibrationError) as error:
        if settings.semantic == "on":
            raise StartupError(f"The semantic tier cannot be had: {error}") from error
        _log.warning("the exact tier serves alone", extra={"why": str(error)})
        yield None
        return
    if loaded is None or embedder is None:
        yield None
        return
    found, check = loaded
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(embedder.stop)
        client = open_client(
            settings.redis_url.get_secret_value(),
            max_connections=settings.redis_max_connections,
            connect_seconds=settings.redis_connect_seconds,
        )
        stack.push_async_callback(client.aclose)
        index = _index(settings, store, client, found.dimensions)
        stack.push_async_callback(index.close)
        writer = IndexWriter(index)
        store.listen(writer.forget)
        await writer.start()
        stack.push_async_callback(writer.stop)
        await index.start()
        judge = await asyncio.to_thread(_judge, settings)
        tier = SemanticTier(
            store,
            guard,
            index=index,
            writer=writer,
            embedder=embedder,
            check=check,
            judge=judge,
            rules=TierRules(
                nominees=settings.nominees,
                embedding_seconds=settings.embedding_timeout_seconds,
                least_cosine=check.cosine_floor,
            ),
        )
        stack.callback(tier.close)
        metrics.SEMANTIC.set(1)
        _log.info(
            "questions are matched by meaning too",
            extra={"model": found.identity, "index": index.name or "none"},
        )
        yield tier


def _load(settings: CacheSettings, model: Model | None) -> tuple[Model, SecondCheck] | None:
    """Load the model and the check, blocking; None where the tier is off."""
    if settings.semantic == "off":
        _log.info("the exact tier serves alone", extra={"why": "the semantic tier is off"})
        return None
    if model is None:
        if not settings.embedding_model:
            raise ModelError("No embedding model is named (PARLEY_CACHE_EMBEDDING_MODEL).")
        model = OnnxModel(Path(settings.embedding_model))
    path = Path(settings.calibration) if settings.calibration else None
    calibration = read_calibration(path)
    if calibration.model != model.identity:
        # Thresholds of another model would serve whatever they happen to.
        raise CalibrationError(
            f"The calibration is of {calibration.model}, the model is {model.identity}."
        )
    trained = None
    if calibration.judge is not None and settings.embedding_model:
        trained = TrainedJudge(Path(settings.embedding_model), model.identity)
    return model, SecondCheck(calibration, model.vocabulary, judge=trained)


def _judge(settings: CacheSettings) -> OnnxCrossEncoder | None:
    """Load the cross-encoder, blocking. One that was asked for and is broken is no option."""
    if not settings.cross_encoder_model:
        return None
    try:
        return OnnxCrossEncoder(Path(settings.cross_encoder_model))
    except ModelError as error:
        raise StartupError(f"The cross-encoder cannot be had: {error}") from error


def _index(
    settings: CacheSettings, store: CacheStore, client: Client, dimensions: int
) -> CheckedIndex:
    replica = uuid.uuid4().hex
    catalogue = StoreCatalogue(store)
    followed = FollowedIndex(
        LocalIndex(
            dimensions,
            max_items=settings.index_max_items,
            graph_above=settings.index_graph_above,
        ),
        Feed(client, settings.key_prefix, replica),
        catalogue,
        reconcile_seconds=settings.index_reconcile_seconds,
    )
    local: tuple[str, FollowedIndex, Starting] = ("local", followed, followed.start)
    if settings.index == "local":
        return CheckedIndex(
            [local], dimensions, replica=replica, seconds=settings.index_canary_seconds
        )
    sets = FilledIndex(
        VectorSetIndex(
            client,
            dimensions,
            prefix=settings.key_prefix,
            max_items=settings.index_max_items,
            life_seconds=2 * settings.longest_ttl_seconds,
        ),
        catalogue,
        seconds=settings.index_reconcile_seconds,
    )
    return CheckedIndex(
        [("vector_sets", sets, sets.start), local],
        dimensions,
        replica=replica,
        seconds=settings.index_canary_seconds,
    )
