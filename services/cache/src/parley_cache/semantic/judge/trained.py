"""The trained judge of pairs: texts in, estimates out."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
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
    10 ms of a core for one pair of short questions and 20 for three at once, and up to
    7 ms more for a text not met lately.
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
        self._kept: OrderedDict[str, Floats] = OrderedDict()
        self._check(trained)

    @property
    def identity(self) -> str:
        """Name and the first 16 hex digits of the weights' SHA-256."""
        return self._identity

    @property
    def kept(self) -> tuple[str, ...]:
        """The texts whose lower half is at hand, the one met last at the end."""
        return tuple(self._kept)

    def logit(self, first: str, second: str) -> float:
        """Returns the logit of a pair; UNJUDGED where a text is too long. Blocking."""
        [logit] = self.logits([(first, second)])
        return logit

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Returns the logit of each pair; UNJUDGED where a text is too long. Blocking.

        For a handful of pairs: they are computed together, and so is all that is new.
        """
        # Sums depend on their order in the last digits; a verdict must not.
        ordered = [sorted(pair) for pair in pairs]
        with self._lock:
            lower = self._below(text for pair in ordered for text in pair)
            halves = [(lower[first], lower[second]) for first, second in ordered]
            known = [(a, b) for a, b in halves if a is not None and b is not None]
            found = iter(self._encoder.logits(known) if known else ())
        return [UNJUDGED if a is None or b is None else _bounded(next(found)) for a, b in halves]

    def _below(self, texts: Iterable[str]) -> dict[str, Floats | None]:
        """Returns each text as the lower layers give it; None where it cannot be judged."""
        found: dict[str, Floats | None] = dict.fromkeys(texts)
        # Before they are kept by their text: that may be a hundred times as long.
        short = [text for text in found if len(text) <= MAX_CHARACTERS]
        ids = {text: self._tokens(text) for text in short if text not in self._kept}
        new = [text for text, tokens in ids.items() if 0 < len(tokens) <= MAX_TOKENS]
        if new:
            made = self._encoder.below([ids[text] for text in new])
            self._kept.update(zip(new, made, strict=True))
        for text in short:
            if text in self._kept:
                self._kept.move_to_end(text)
                found[text] = self._kept[text]
        while len(self._kept) > KEPT_TEXTS:
            self._kept.popitem(last=False)
        return found

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text.encode("utf-8", "replace").decode()).ids)

    def _check(self, trained: TrainedWeights) -> None:
        """Warms up, and tries the pairs whose logits are known."""
        for probe in trained.probes:
            logit = self.logit(probe.first, probe.second)
            if abs(logit - probe.logit) > _TOLERANCE:
                raise ModelError(f"The judge gives {logit:.2f} where it gave {probe.logit:.2f}.")


def _bounded(logit: float) -> float:
    return max(UNJUDGED, min(-UNJUDGED, logit)) if math.isfinite(logit) else UNJUDGED
