"""The judge as PyTorch trains it; `parley_cache.semantic.judge.encoder` computes the same.

The last layers are trained whole, the first ones stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from parley_cache.semantic.judge.encoder import EPSILON, HEADS
from parley_cache.semantic.judge.tensors import LAYERS
from parley_cache.semantic.judge.weights import HIDDEN, MATRICES, PROBES, WIDTH

SIZE = WIDTH // HEADS
FAR = -1e4
NORMS = ("norm1", "norm2")


def tensor(value: Any) -> Tensor:
    """Returns a copy as float32."""
    return torch.tensor(value, dtype=torch.float32)


class Layer(nn.Module):
    """One layer of the encoder; a `trained` one is over both texts."""

    def __init__(self, weights: Mapping[str, Any], layer: int, *, trained: bool) -> None:
        super().__init__()
        for name in (*MATRICES, *NORMS):
            for part in "wb":
                value = nn.Parameter(tensor(weights[f"{layer}.{name}.{part}"]))
                self.register_parameter(f"{name}_{part}", value)
        if trained:
            self.across = nn.Parameter(torch.zeros(HEADS))
            self.mark = nn.Parameter(torch.zeros(WIDTH))

    def product(self, x: Tensor, name: str) -> Tensor:
        """Returns `x` by the matrix `name`, shape (rows, out)."""
        return torch.addmm(getattr(self, f"{name}_b"), x, getattr(self, f"{name}_w"))

    def forward(self, x: Tensor, hidden: Tensor, other: Tensor | None, drop: float) -> Tensor:
        """Returns the tokens after the layer: (pairs, tokens, width).

        `hidden` is far below 0 at padding; `other` is 1 where two tokens are of two texts.
        """
        batch, tokens, _ = x.shape
        rows = x.reshape(-1, WIDTH)
        query, key, value = (
            self.product(rows, name).view(batch, tokens, HEADS, SIZE).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(SIZE) + hidden
        if other is not None:
            scores = scores + self.across.view(1, -1, 1, 1) * other
        shares = scores.softmax(-1)
        seen = (shares @ value).transpose(1, 2)
        if other is not None:
            mass = (shares * other).sum(-1).transpose(1, 2)
            seen = seen + mass[..., None] * self.mark.view(1, 1, HEADS, SIZE)
        y = self.product(seen.reshape(-1, WIDTH), "out").view(batch, tokens, WIDTH)
        x = self.norm(x + functional.dropout(y, drop), "norm1")
        inner = functional.gelu(self.product(x.reshape(-1, WIDTH), "up"))
        y = self.product(inner, "down").view(batch, tokens, WIDTH)
        return self.norm(x + functional.dropout(y, drop), "norm2")

    def norm(self, x: Tensor, name: str) -> Tensor:
        """Returns `x` with mean 0 and variance 1, scaled and shifted."""
        weight, bias = getattr(self, f"{name}_w"), getattr(self, f"{name}_b")
        return functional.layer_norm(x, (WIDTH,), weight, bias, EPSILON)


class PairModel(nn.Module):
    """The whole judge; only what lies above the first `lower` layers is trained."""

    def __init__(self, weights: Mapping[str, Any], lower: int) -> None:
        super().__init__()
        self.word = tensor(weights["word"]) * tensor(weights["word.scale"])
        self.position = tensor(weights["position"])
        self.norm = (tensor(weights["norm.w"]), tensor(weights["norm.b"]))
        layers = [Layer(weights, n, trained=n >= lower) for n in range(LAYERS)]
        self.lower = nn.ModuleList(layers[:lower]).requires_grad_(False)
        self.upper = nn.ModuleList(layers[lower:])
        self.sharpness = nn.Parameter(torch.tensor(15.0))
        self.gap = nn.Parameter(torch.eye(WIDTH) * 0.5)
        self.probe = nn.Parameter(torch.randn(WIDTH, PROBES) / math.sqrt(WIDTH))
        self.head1 = nn.Linear(4 * WIDTH + 2 * PROBES, HIDDEN)
        self.head2 = nn.Linear(HIDDEN, 1)
        nn.init.zeros_(self.head2.bias)

    @torch.no_grad()
    def below(self, ids: Tensor) -> Tensor:
        """Returns the tokens of (texts, tokens) ids after the first layers; id 0 is padding."""
        x = self.word[ids] + self.position[: ids.shape[1]]
        x = functional.layer_norm(x, (WIDTH,), *self.norm, EPSILON)
        hidden = (ids == 0)[:, None, None, :].float() * FAR
        for layer in self.lower:
            x = layer(x, hidden, None, 0.0)
        return x

    def forward(
        self, a: Tensor, b: Tensor, drop: float = 0.0, below: Tensor | None = None
    ) -> Tensor:
        """Returns a logit a pair of (pairs, tokens) ids: shape (pairs,).

        `below`: what the method gives for all `a`, then all `b`, where it is known.
        """
        pairs, tokens = a.shape
        x = self.below(torch.cat((a, b))) if below is None else below
        x = torch.cat((x[:pairs], x[pairs:]), 1)
        empty = torch.cat((a, b), 1) == 0
        side = torch.arange(2 * tokens) >= tokens
        other = (side[:, None] != side[None, :]).float()
        hidden = empty[:, None, None, :].float() * FAR
        gap = self.gaps(x, hidden[:, 0], other)
        x = x + gap @ self.gap
        for layer in self.upper:
            x = layer(x, hidden, other, drop)
        first, second = x[:, 0], x[:, tokens]
        kept = (~empty)[..., None].float()
        pooled = (
            first + second,
            (first - second).abs(),
            (x * kept).sum(1) / kept.sum(1),
            x.masked_fill(empty[..., None], FAR).amax(1),
            functional.gelu(gap @ self.probe).masked_fill(empty[..., None], FAR).amax(1),
            (functional.gelu(gap.abs() @ self.probe) * kept).sum(1) / 8,
        )
        head = functional.dropout(torch.cat(pooled, 1), drop)
        logits: Tensor = self.head2(functional.gelu(self.head1(head)))
        return logits.squeeze(1)

    def gaps(self, x: Tensor, hidden: Tensor, other: Tensor) -> Tensor:
        """Returns each token less what the other text has most like it."""
        unit = functional.normalize(x, dim=-1)
        likeness = unit @ unit.transpose(1, 2) * self.sharpness + hidden + (1 - other) * FAR
        return x - likeness.softmax(-1) @ x
