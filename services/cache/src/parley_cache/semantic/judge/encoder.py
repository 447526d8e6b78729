"""The trained encoder of pairs, in NumPy: what it computes, and nothing else.

Two texts go through the first layers of the embedding model apart, as there. Then each
token is given the difference to what in the other text is most like it, and both texts
go through the last layers as one sequence, whose weights were trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

HEADS = 12
EPSILON = 1e-12


def gelu(x: Floats) -> Floats:
    """Returns x·Φ(x); Φ by Abramowitz and Stegun 7.1.26, which errs by 1.5e-7 at most."""
    z = np.abs(x) * np.float32(1 / math.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    tail = np.float32(1.061405429) * t
    for term in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = (tail + np.float32(term)) * t
    erf = np.copysign(1 - tail * np.exp(-z * z), x)
    return np.asarray(x * (1 + erf) * np.float32(0.5), dtype=np.float32)


def normalised(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """Returns `x` with mean 0 and variance 1 a row, scaled and shifted."""
    centred = x - x.mean(axis=1, keepdims=True)
    variance = np.einsum("ij,ij->i", centred, centred) / np.float32(x.shape[1])
    scale = 1 / np.sqrt(variance + np.float32(EPSILON))
    return np.asarray(centred * scale[:, None] * weight + bias, dtype=np.float32)


def softmax(x: Floats) -> Floats:
    """Returns shares over the last axis."""
    shifted = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


class PairEncoder:
    """Gives a pair of token sequences one logit.

    `weights` holds the embeddings, all layers (those from `lower` on as trained) and the
    head. One pair at a time: sums in a batch depend on who else is in it.
    """

    def __init__(self, weights: Mapping[str, Any], lower: int, layers: int) -> None:
        self._w = weights
        self._lower = lower
        self._layers = layers

    def below(self, ids: Sequence[int]) -> Floats:
        """Returns a text's tokens after the first layers: shape (tokens, width)."""
        w, at = self._w, np.asarray(ids, dtype=np.int64)
        words = w["word"][at] * w["word.scale"][at]
        x = normalised(words + w["position"][: len(at)], w["norm.w"], w["norm.b"])
        for layer in range(self._lower):
            x = self._layer(x, layer, 0)
        return x

    def logit(self, a: Floats, b: Floats) -> float:
        """Returns the logit of two texts as `below` gives them."""
        w, split = self._w, len(a)
        likeness = _unit(a) @ _unit(b).T * w["sharpness"]
        gap = np.concatenate((a - softmax(likeness) @ b, b - softmax(likeness.T) @ a))
        x = np.concatenate((a, b)) + gap @ w["gap"]
        for layer in range(self._lower, self._layers):
            x = self._layer(x, layer, split)
        hidden = gelu(self._pooled(x, split, gap) @ w["head1.w"] + w["head1.b"])
        return float((hidden @ w["head2.w"] + w["head2.b"])[0])

    def _pooled(self, x: Floats, split: int, gap: Floats) -> Floats:
        """Returns what the head sees of a pair."""
        first, second = x[0], x[split]
        one = gelu(gap @ self._w["probe"])
        two = gelu(np.abs(gap) @ self._w["probe"])
        return np.concatenate(
            (
                first + second,
                np.abs(first - second),
                x.mean(axis=0),
                x.max(axis=0),
                one.max(axis=0),
                two.sum(axis=0) / np.float32(8),
            )
        )

    def _layer(self, x: Floats, layer: int, split: int) -> Floats:
        w, name = self._w, f"{layer}."
        seen = self._attend(x, layer, split)
        y = x + seen @ w[name + "out.w"] + w[name + "out.b"]
        x = normalised(y, w[name + "norm1.w"], w[name + "norm1.b"])
        inner = gelu(x @ w[name + "up.w"] + w[name + "up.b"])
        y = x + inner @ w[name + "down.w"] + w[name + "down.b"]
        return normalised(y, w[name + "norm2.w"], w[name + "norm2.b"])

    def _attend(self, x: Floats, layer: int, split: int) -> Floats:
        """Returns what each token sees; from `split` on, if not 0, they are the other text's."""
        tokens, width = x.shape
        size = width // HEADS
        w = self._w
        query, key, value = (
            (x @ w[f"{layer}.{name}.w"] + w[f"{layer}.{name}.b"])
            .reshape(tokens, HEADS, size)
            .swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) * np.float32(1 / math.sqrt(size))
        if not split:
            out = softmax(scores) @ value
            return np.asarray(out.swapaxes(0, 1).reshape(tokens, width))
        bias = w[f"{layer}.across"][:, None, None]
        scores[:, :split, split:] += bias
        scores[:, split:, :split] += bias
        shares = softmax(scores)
        across = np.concatenate(
            (shares[:, :split, split:].sum(axis=2), shares[:, split:, :split].sum(axis=2)), axis=1
        )
        mark = w[f"{layer}.mark"].reshape(HEADS, 1, size)
        out = shares @ value + across[:, :, None] * mark
        return np.asarray(out.swapaxes(0, 1).reshape(tokens, width))


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), EPSILON))
