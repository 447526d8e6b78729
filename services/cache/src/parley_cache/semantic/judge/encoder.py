"""The trained encoder of pairs, in NumPy: what it computes, and nothing else.

Two texts go through the first layers of the embedding model apart, as there. Then each
token is given the difference to what in the other text is most like it, and both texts
go through the last layers as one sequence, whose weights were trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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


class Span(NamedTuple):
    """Where tokens stand that see each other: one text's, or a pair's parted at `middle`."""

    start: int
    middle: int
    end: int


class PairEncoder:
    """Gives a pair of token sequences one logit.

    `weights` holds the embeddings, all layers (those from `lower` on as trained) and the
    head. What is given together goes through each matrix together: three pairs take two
    thirds of the time. Who else is among them changes a number's last digits.
    """

    def __init__(self, weights: Mapping[str, Any], lower: int, layers: int) -> None:
        self._w = weights
        self._lower = lower
        self._layers = layers

    def below(self, texts: Sequence[Sequence[int]]) -> list[Floats]:
        """Returns each text's tokens after the first layers: shape (tokens, width)."""
        w = self._w
        at = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in texts])
        places = np.concatenate([np.arange(len(ids)) for ids in texts])
        words = w["word"][at] * w["word.scale"][at] + w["position"][places]
        x = normalised(words, w["norm.w"], w["norm.b"])
        spans = _spans([(len(ids), 0) for ids in texts])
        for layer in range(self._lower):
            x = self._layer(x, layer, spans)
        return [x[span.start : span.end].copy() for span in spans]

    def logits(self, pairs: Sequence[tuple[Floats, Floats]]) -> list[float]:
        """Returns the logit of each pair of texts as `below` gives them."""
        gaps = [self._gap(a, b) for a, b in pairs]
        spans = _spans([(len(a), len(b)) for a, b in pairs])
        x = np.concatenate([text for pair in pairs for text in pair])
        x += np.concatenate(gaps) @ self._w["gap"]
        for layer in range(self._lower, self._layers):
            x = self._layer(x, layer, spans)
        return [self._head(x, span, gap) for span, gap in zip(spans, gaps, strict=True)]

    def _gap(self, a: Floats, b: Floats) -> Floats:
        """Returns each token less what the other text has most like it."""
        likeness = _unit(a) @ _unit(b).T * self._w["sharpness"]
        return np.concatenate((a - softmax(likeness) @ b, b - softmax(likeness.T) @ a))

    def _head(self, x: Floats, span: Span, gap: Floats) -> float:
        w = self._w
        pooled = self._pooled(x[span.start : span.end], span.middle - span.start, gap)
        hidden = gelu(pooled @ w["head1.w"] + w["head1.b"])
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

    def _layer(self, x: Floats, layer: int, spans: Sequence[Span]) -> Floats:
        """Returns the tokens after a layer."""
        w, name = self._w, f"{layer}."
        seen = self._attend(x, layer, spans)
        y = x + seen @ w[name + "out.w"] + w[name + "out.b"]
        x = normalised(y, w[name + "norm1.w"], w[name + "norm1.b"])
        inner = gelu(x @ w[name + "up.w"] + w[name + "up.b"])
        y = x + inner @ w[name + "down.w"] + w[name + "down.b"]
        return normalised(y, w[name + "norm2.w"], w[name + "norm2.b"])

    def _attend(self, x: Floats, layer: int, spans: Sequence[Span]) -> Floats:
        """Returns what each token sees of its own text, or of its own pair."""
        w = self._w
        triple = [x @ w[f"{layer}.{n}.w"] + w[f"{layer}.{n}.b"] for n in ("query", "key", "value")]
        seen = np.empty_like(x)
        for span in spans:
            query, key, value = (_heads(rows[span.start : span.end]) for rows in triple)
            scores = query @ key.swapaxes(1, 2) * np.float32(1 / math.sqrt(query.shape[2]))
            pair = span.middle < span.end
            out = self._crossed(scores, value, layer, span) if pair else softmax(scores) @ value
            seen[span.start : span.end] = _rows(out)
        return seen

    def _crossed(self, scores: Floats, value: Floats, layer: int, span: Span) -> Floats:
        """Returns what a pair's tokens see, those of the other text weighed and marked."""
        split, bias = span.middle - span.start, self._w[f"{layer}.across"][:, None, None]
        scores[:, :split, split:] += bias
        scores[:, split:, :split] += bias
        shares = softmax(scores)
        to_second, to_first = shares[:, :split, split:], shares[:, split:, :split]
        across = np.concatenate((to_second.sum(axis=2), to_first.sum(axis=2)), axis=1)
        mark = self._w[f"{layer}.mark"].reshape(HEADS, 1, -1)
        return np.asarray(shares @ value + across[:, :, None] * mark)


def _spans(lengths: Sequence[tuple[int, int]]) -> list[Span]:
    """Returns the spans of pairs of so many tokens, one after another."""
    spans: list[Span] = []
    for first, second in lengths:
        start = spans[-1].end if spans else 0
        spans.append(Span(start, start + first, start + first + second))
    return spans


def _heads(rows: Floats) -> Floats:
    """Returns (tokens, width) as (heads, tokens, size)."""
    return rows.reshape(len(rows), HEADS, -1).swapaxes(0, 1)


def _rows(heads: Floats) -> Floats:
    """Returns (heads, tokens, size) as (tokens, width)."""
    return np.asarray(heads.swapaxes(0, 1).reshape(heads.shape[1], -1))


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), EPSILON))
