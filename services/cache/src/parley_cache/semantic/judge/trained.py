"""The trained judge of pairs: texts in, estimates out."""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from pathlib import Path

from parley_cache.semantic.embedding import ModelError
from parley_cache.semantic.judge.encoder import Floats
from parley_cache.semantic.judge.weights import TrainedWeights, read_trained

# Of one question, its two ends included. A longer one is not judged.
MAX_TOKENS = 96
MAX_CHARACTERS = 1_500
# Texts whose lower half is kept: 25 kB of most, 38 MB at worst. A question is compared with
# up to three in one look-up, and they with the next question.
KEPT_TEXTS = 256
# What is said of a pair that is not judged: surely not the same.
UNJUDGED = -30.0
_TOLERANCE = 0.05


class TrainedJudge:
    """Gives each pair of questions a logit: above 0, more likely the same than not.

    Built from the embedding model in `model` (`model.onnx`, `tokenizer.json`, of the
    identity `identity`) and the weights that training changed. Symmetric, one thread,
    10 ms of a core a pair of short questions, and 7 ms more for a text not met lately.
    Raises ModelError where the two do not belong together or do not give the logits that
    they gave when they were made.
    """

    def __init__(self, model: Path, identity: str, trained: TrainedWeights | None = None) -> None:
        from tokenizers import Tokenizer

        trained = trained if trained is not None else read_trained()
        if trained.model != identity:
            raise ModelError(
                f"The judge was trained upon {trained.model}, the model is {identity}."
            )
        self._identity = trained.identity
        self._encoder = trained.encoder(model / "model.onnx")
        try:
            self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        except Exception as error:
            raise ModelError(f"The tokenizer in {model} cannot be loaded: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        # One computation at a time: what it needs for a moment is bounded so.
        self._lock = threading.Lock()
        self._below = lru_cache(KEPT_TEXTS)(self._encoded)
        self._check(trained)

    @property
    def identity(self) -> str:
        """Name and the first 16 hex digits of the weights' SHA-256."""
        return self._identity

    def logit(self, first: str, second: str) -> float:
        """Returns the logit of a pair; UNJUDGED where a text is too long. Blocking."""
        # Before they are kept by their text: that may be a hundred times as long.
        if max(len(first), len(second)) > MAX_CHARACTERS:
            return UNJUDGED
        # Sums depend on their order in the last digits; a verdict must not.
        with self._lock:
            a, b = (self._below(text) for text in sorted((first, second)))
            if a is None or b is None:
                return UNJUDGED
            logit = self._encoder.logit(a, b)
        return max(UNJUDGED, min(-UNJUDGED, logit)) if math.isfinite(logit) else UNJUDGED

    def _encoded(self, text: str) -> Floats | None:
        """Returns `text` as the lower layers give it; None where it has too many tokens."""
        ids = self._tokens(text)
        return self._encoder.below(ids) if ids else None

    def _tokens(self, text: str) -> list[int]:
        """Returns the tokens of `text`; none where they are too many."""
        ids = self._tokenizer.encode(text.encode("utf-8", "replace").decode()).ids
        return list(ids) if len(ids) <= MAX_TOKENS else []

    def _check(self, trained: TrainedWeights) -> None:
        """Warms up, and tries the pairs whose logits are known."""
        for probe in trained.probes:
            logit = self.logit(probe.first, probe.second)
            if abs(logit - probe.logit) > _TOLERANCE:
                raise ModelError(f"The judge gives {logit:.2f} where it gave {probe.logit:.2f}.")
