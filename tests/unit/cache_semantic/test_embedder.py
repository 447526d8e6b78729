"""The embedder under many askers, a full queue, a slow model, a broken one and a stop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from parley_cache.semantic.embedding import (
    Embedder,
    EmbeddingError,
    Model,
    ModelError,
    OnnxModel,
    Vector,
    check_model,
)
from support.embedding import WordModel
from support.poll import until


class GatedModel(WordModel):
    """Stands still until it is let go; fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = 0
        self.broken = False

    def embed(self, texts: Sequence[str]) -> Vector:
        self.entered += 1
        assert self.gate.wait(10)
        if self.broken:
            raise RuntimeError("kernel")
        return super().embed(texts)


@asynccontextmanager
async def running(model: Model, **bounds: int) -> AsyncIterator[Embedder]:
    embedder = Embedder(model, **bounds)
    await embedder.start()
    try:
        yield embedder
    finally:
        await embedder.stop()


async def test_concurrent_askers_share_batches_and_get_their_own_vectors() -> None:
    model = GatedModel()
    async with running(model, max_batch=16) as embedder:
        model.batches.clear()
        model.gate.clear()
        texts = [f"question number {n}" for n in range(50)]
        asking = [asyncio.create_task(embedder.embed(text, timeout=5)) for text in texts]
        await until(lambda: model.entered >= 3)
        model.gate.set()
        vectors = await asyncio.gather(*asking)

    for text, vector in zip(texts, vectors, strict=True):
        assert np.allclose(vector, WordModel().embed([text])[0])
    assert max(model.batches) <= 16
    assert len(model.batches) <= 5


async def test_a_full_queue_refuses_at_once() -> None:
    model = GatedModel()
    async with running(model, max_waiting=2, max_batch=1) as embedder:
        model.gate.clear()
        before = model.entered
        first = asyncio.create_task(embedder.embed("one", timeout=5))
        await until(lambda: model.entered > before)
        waiting = [asyncio.create_task(embedder.embed(t, timeout=5)) for t in ("two", "three")]
        await asyncio.sleep(0)
        with pytest.raises(EmbeddingError) as refused:
            await embedder.embed("four", timeout=5)
        model.gate.set()
        await asyncio.gather(first, *waiting)

    assert refused.value.reason == "embedding_busy"


async def test_a_time_out_frees_its_place_and_the_next_asker_is_served() -> None:
    model = GatedModel()
    async with running(model, max_waiting=1, max_batch=1) as embedder:
        model.gate.clear()
        before = model.entered
        first = asyncio.create_task(embedder.embed("one", timeout=5))
        await until(lambda: model.entered > before)
        with pytest.raises(EmbeddingError) as late:
            await embedder.embed("two", timeout=0.01)
        third = asyncio.create_task(embedder.embed("three", timeout=5))
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(first, third)

    assert late.value.reason == "embedding_timeout"


async def test_a_failing_batch_fails_its_askers_and_no_others() -> None:
    model = GatedModel()
    async with running(model) as embedder:
        model.broken = True
        with pytest.raises(EmbeddingError) as failed:
            await embedder.embed("one", timeout=5)
        model.broken = False
        vector = await embedder.embed("two", timeout=5)

    assert failed.value.reason == "embedding_failed"
    assert vector.shape == (model.dimensions,)


async def test_a_stop_answers_everyone_who_waits() -> None:
    model = GatedModel()
    embedder = Embedder(model, max_batch=1)
    await embedder.start()
    model.gate.clear()
    before = model.entered
    asking = [asyncio.create_task(embedder.embed(f"{n}", timeout=5)) for n in range(3)]
    await until(lambda: model.entered > before)

    await embedder.stop()
    model.gate.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)

    assert {getattr(outcome, "reason", outcome) for outcome in outcomes} == {"embedding_closed"}
    with pytest.raises(EmbeddingError):
        await embedder.embed("later", timeout=5)


@pytest.mark.parametrize("harm", ["zeros", "nan", "same", "shape"])
def test_a_model_whose_numbers_are_wrong_is_refused(harm: str) -> None:
    class Harmed(WordModel):
        def embed(self, texts: Sequence[str]) -> Vector:
            good = super().embed(texts)
            return {
                "zeros": np.zeros_like(good),
                "nan": good * np.float32("nan"),
                "same": np.repeat(good[:1], len(good), axis=0),
                "shape": good[:, :3],
            }[harm]

    with pytest.raises(ModelError):
        check_model(Harmed())


def test_a_folder_without_the_files_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.onnx is missing"):
        OnnxModel(tmp_path)


def test_a_broken_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    (tmp_path / "tokenizer.json").write_text("{}")

    with pytest.raises(ModelError, match="cannot be loaded"):
        OnnxModel(tmp_path)
