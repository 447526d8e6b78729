"""Sentence embeddings from an ONNX model: the model, and its sharing among requests.

`OnnxModel` is the blocking part: text in, unit vectors out. `Embedder` puts it behind
a bounded queue and one thread, and joins what waits into batches, so that the event
loop never computes and an asker never waits without end.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)

MAX_TOKENS = 256
# A question is a sentence or two: what lies behind this many characters is not read.
MAX_CHARACTERS = 4_096
_PROBES = (
    "How do I reset my password?",
    "What is the way to reset a password?",
    "Bananas are rich in potassium.",
)


class EmbeddingError(Exception):
    """An embedding could not be had; the caller goes on without one.

    `reason` is a stable word: `embedding_busy`, `embedding_timeout`, `embedding_failed`,
    `embedding_closed`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason


class ModelError(Exception):
    """The model's files cannot be used: what is wrong, in a sentence."""


class Model(Protocol):
    """What computes embeddings, blocking."""

    @property
    def identity(self) -> str:
        """Name and digest of the model: part of every key that depends on it."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    @property
    def vocabulary(self) -> frozenset[str]:
        """Words that the model knows whole; empty where it cannot tell."""
        ...

    def embed(self, texts: Sequence[str]) -> Vector:
        """Returns one unit vector a text, shape (len(texts), dimensions), float32."""
        ...


class OnnxModel:
    """A BERT-like encoder in `folder`: `model.onnx` and `tokenizer.json`.

    Mean pooling over the mask, then unit length. One thread: it shares its machine.
    Raises ModelError where the files are missing, broken or of another shape.
    """

    def __init__(self, folder: Path, name: str = "minilm-l6-v2-int8", threads: int = 1) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        model, tokenizer = folder / "model.onnx", folder / "tokenizer.json"
        for file in (model, tokenizer):
            if not file.is_file():
                raise ModelError(
                    f"{file} is missing; `parley_devstack.embedding_model` fetches it."
                )
        self._identity = file_identity(folder, name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"]
            )
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:
            raise ModelError(f"The model in {folder} cannot be loaded: {error}") from error
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()
        self._vocabulary = frozenset(
            word for word in self._tokenizer.get_vocab() if word.isalpha() and len(word) > 2
        )
        self._inputs = {value.name for value in self._session.get_inputs()}
        self._dimensions = int(self._session.get_outputs()[0].shape[-1])

    @property
    def identity(self) -> str:
        """Name and the first 16 hex digits of the files' SHA-256."""
        return self._identity

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._dimensions

    @property
    def vocabulary(self) -> frozenset[str]:
        """Whole words of the tokenizer's vocabulary."""
        return self._vocabulary

    def embed(self, texts: Sequence[str]) -> Vector:
        """Returns one unit vector a text, shape (len(texts), dimensions), float32."""
        if not texts:
            return np.zeros((0, self._dimensions), dtype=np.float32)
        encoded = self._tokenizer.encode_batch([_readable(text) for text in texts])
        ids = np.array([e.ids for e in encoded], dtype=np.int64)
        mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feeds["token_type_ids"] = np.zeros_like(ids)
        hidden = np.asarray(self._session.run(None, feeds)[0], dtype=np.float32)
        weight = mask[:, :, None].astype(np.float32)
        pooled = (hidden * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1.0)
        length = np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(pooled / np.maximum(length, 1e-12), dtype=np.float32)


def file_identity(folder: Path, name: str = "minilm-l6-v2-int8") -> str:
    """Returns `name` and the first 16 hex digits of the files' SHA-256. Raises OSError."""
    digest = hashlib.sha256()
    for file in (folder / "model.onnx", folder / "tokenizer.json"):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return f"{name}:{digest.hexdigest()[:16]}"


def check_model(model: Model) -> None:
    """Warms `model` up and checks its numbers. Raises ModelError where they are not sane.

    Unit length, the same text alone and in a batch alike, and paraphrases nearer than
    strangers: a truncated file, a wrong tokenizer or a broken kernel fails here.
    """
    together = model.embed(_PROBES)
    alone = model.embed(_PROBES[:1])
    if together.shape != (len(_PROBES), model.dimensions) or not np.isfinite(together).all():
        raise ModelError("The embedding model gives vectors of another shape, or no numbers.")
    if np.abs(np.linalg.norm(together, axis=1) - 1).max() > 1e-3:
        raise ModelError("The embedding model's vectors are not of unit length.")
    # Quantised kernels scale a batch as a whole, so the two are near, not equal.
    if float(together[0] @ alone[0]) < 0.97:
        raise ModelError("The embedding model gives another vector in a batch than alone.")
    near, far = float(together[0] @ together[1]), float(together[0] @ together[2])
    if near < far + 0.3:
        raise ModelError(
            f"The embedding model finds {near:.2f} and {far:.2f} where near and far are."
        )


@dataclass(slots=True)
class _Waiting:
    text: str
    done: asyncio.Future[Vector]


class Embedder:
    """Shares one model among concurrent requests.

    At most `max_waiting` texts wait; a further one is refused (`embedding_busy`). What
    waits while a batch runs makes the next batch, of at most `max_batch` texts.
    """

    def __init__(self, model: Model, *, max_waiting: int = 256, max_batch: int = 32) -> None:
        self._model = model
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._waiting: deque[_Waiting] = deque()
        self._news = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedding")
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def identity(self) -> str:
        """The model's identity."""
        return self._model.identity

    @property
    def vocabulary(self) -> frozenset[str]:
        """Words that the model knows whole."""
        return self._model.vocabulary

    async def start(self) -> None:
        """Warms the model up and begins to serve. Raises ModelError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, check_model, self._model)
        self._task = asyncio.create_task(self._serve(), name="embedder")

    async def stop(self) -> None:
        """Refuses what waits (`embedding_closed`) and ends the thread."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        while self._waiting:
            _fail(self._waiting.popleft(), EmbeddingError("embedding_closed"))
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def embed(self, text: str, *, timeout: float) -> Vector:
        """Returns the unit vector of `text`, shape (dimensions,), float32.

        Raises EmbeddingError when the queue is full, `timeout` seconds pass, the model
        fails or the embedder is stopped.
        """
        if self._closed or self._task is None:
            raise EmbeddingError("embedding_closed")
        if len(self._waiting) >= self._max_waiting:
            raise EmbeddingError("embedding_busy", f"{self._max_waiting} texts are waiting")
        waiting = _Waiting(text, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._news.set()
        try:
            async with asyncio.timeout(timeout):
                return await waiting.done
        except TimeoutError as error:
            raise EmbeddingError("embedding_timeout") from error
        finally:
            # One that nobody waits for any more gives its place in the queue back.
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                size = min(len(self._waiting), self._max_batch)
                batch = [self._waiting.popleft() for _ in range(size)]
                await self._run(loop, batch)

    async def _run(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
        texts = [waiting.text for waiting in batch]
        try:
            vectors = await loop.run_in_executor(self._thread, self._model.embed, texts)
            for waiting, vector in zip(batch, vectors, strict=True):
                if not waiting.done.done():
                    waiting.done.set_result(vector)
        except asyncio.CancelledError:
            for waiting in batch:
                _fail(waiting, EmbeddingError("embedding_closed"))
            raise
        except Exception as error:  # noqa: BLE001 - a broken batch must not end the service
            logger.warning("a batch of embeddings failed", extra={"error": type(error).__name__})
            for waiting in batch:
                _fail(waiting, EmbeddingError("embedding_failed", str(error)))


def _fail(waiting: _Waiting, error: EmbeddingError) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)
        # Whoever timed out is not there to look at it.
        waiting.done.exception()


def _readable(text: str) -> str:
    """The head of `text` in characters that can be encoded: lone surrogates cannot."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
