"""A cross-encoder behind the `PairJudge` protocol: an adapter, for a model that you bring.

No quality is claimed: no such model was measured here. It may only refuse what the
rules let through, never serve what they keep apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from parley_cache.semantic.embedding import MAX_CHARACTERS, MAX_TOKENS, ModelError


class OnnxCrossEncoder:
    """A sequence-pair classifier in `folder`: `model.onnx` and `tokenizer.json`.

    The model gives one logit a pair (its sigmoid is the estimate) or two (different,
    same: softmax). Raises ModelError where it cannot be loaded or has another shape.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        model, tokenizer = folder / "model.onnx", folder / "tokenizer.json"
        for file in (model, tokenizer):
            if not file.is_file():
                raise ModelError(f"{file} is missing.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"]
            )
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:
            raise ModelError(f"The cross-encoder in {folder} cannot be loaded: {error}") from error
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()
        self._inputs = {value.name for value in self._session.get_inputs()}

    def judge(self, question: str, candidates: Sequence[str]) -> list[float]:
        """Returns an estimate, 0 to 1, for each candidate. Blocking. Raises ModelError."""
        if not candidates:
            return []
        head = question[:MAX_CHARACTERS].encode("utf-8", "replace").decode()
        pairs = [
            (head, text[:MAX_CHARACTERS].encode("utf-8", "replace").decode()) for text in candidates
        ]
        encoded = self._tokenizer.encode_batch(pairs)
        feeds = {
            "input_ids": np.array([e.ids for e in encoded], dtype=np.int64),
            "attention_mask": np.array([e.attention_mask for e in encoded], dtype=np.int64),
            "token_type_ids": np.array([e.type_ids for e in encoded], dtype=np.int64),
        }
        wanted = {name: value for name, value in feeds.items() if name in self._inputs}
        logits = np.asarray(self._session.run(None, wanted)[0], dtype=np.float64)
        return estimates(logits, len(candidates))


def estimates(logits: np.ndarray, count: int) -> list[float]:
    """Returns estimates, 0 to 1, from logits of shape (count,), (count, 1) or (count, 2).

    Raises ModelError for any other shape, or numbers that are none.
    """
    if logits.size and not np.isfinite(logits).all():
        raise ModelError("The cross-encoder gave no numbers.")
    if logits.shape in ((count,), (count, 1)):
        bounded = np.clip(logits.reshape(count), -30, 30)
        return [float(value) for value in 1 / (1 + np.exp(-bounded))]
    if logits.shape == (count, 2):
        bounded = np.clip(logits[:, 1] - logits[:, 0], -30, 30)
        return [float(value) for value in 1 / (1 + np.exp(-bounded))]
    raise ModelError(f"The cross-encoder gave logits of shape {logits.shape}.")
