"""The training loop, and what it writes.

A constant rate after a short rise, then a straight fall to nothing over the last
`decay` steps. All draws come from one seed; the sums of a thread are the machine's.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from parley_cache.semantic.judge.weights import WIDTH
from parley_pair_judge.examples import Example, Variations
from parley_pair_judge.model import PairModel

_RISE = 60
_POOL = 16  # batches that are sorted by length together
_MAX_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train."""

    steps: int
    decay: int
    batch: int = 32
    seed: int = 7
    rate: float = 1e-4
    head_rate: float = 3e-4
    drop: float = 0.1
    replaced: float = 0.10  # share of paraphrases of which two further examples are made
    edited: float = 0.80  # share that is edited, where there is something to edit
    strangers: float = 0.04


@dataclass(frozen=True, slots=True)
class Batch:
    """Ids of both texts (padded with 0), labels, and each example's weight."""

    first: Tensor
    second: Tensor
    same: Tensor
    weight: Tensor

    @property
    def texts(self) -> Tensor:
        """All first texts, then all second ones."""
        return torch.cat((self.first, self.second))


class Texts:
    """Turns texts into ids."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.enable_truncation(_MAX_TOKENS)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text."""
        return [encoded.ids for encoded in self._tokenizer.encode_batch(list(texts))]

    @staticmethod
    def padded(texts: Sequence[Sequence[int]], length: int) -> Tensor:
        """Returns ids of shape (texts, length)."""
        made = np.zeros((len(texts), length), dtype=np.int64)
        for row, ids in zip(made, texts, strict=True):
            row[: len(ids)] = ids
        return torch.from_numpy(made)


class Memory:
    """What the untrained layers give for a text, kept from one round to the next."""

    def __init__(self, model: PairModel, most: int = 60_000) -> None:
        self._model = model
        self._most = most
        self._kept: dict[bytes, Tensor] = {}

    def below(self, ids: Tensor) -> Tensor:
        """Returns `model.below(ids)`, to half precision."""
        names = [row.numpy().tobytes().rstrip(b"\0") for row in ids]
        missing = [n for n, name in enumerate(names) if name not in self._kept]
        if missing:
            if len(self._kept) > self._most:
                self._kept.clear()
                missing = list(range(len(names)))
            made = self._model.below(ids[missing])
            for n, tokens in zip(missing, made, strict=True):
                self._kept[names[n]] = tokens[: int((ids[n] > 0).sum())].half().clone()
        found = torch.zeros(*ids.shape, WIDTH)
        for row, name in zip(found, names, strict=True):
            row[: len(self._kept[name])] = self._kept[name]
        return found


def train(
    model: PairModel,
    examples: Sequence[Example],
    variations: Variations,
    texts: Texts,
    plan: Plan,
    *,
    between: Callable[[int], None] | None = None,
) -> None:
    """Trains `model` in place, and says how it goes on stderr; `between` runs at each step."""
    rng = random.Random(plan.seed)
    upper = [p for p in model.upper.parameters() if p.requires_grad]
    known = {id(p) for p in upper}
    head = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    optimiser = torch.optim.AdamW(
        [{"params": upper, "lr": plan.rate}, {"params": head, "lr": plan.head_rate}],
        weight_decay=0.01,
    )
    rates = (plan.rate, plan.head_rate)
    memory, losses, began = Memory(model), list[float](), time.monotonic()
    for step, batch in enumerate(_batches(examples, variations, texts, plan, rng)):
        if between is not None:
            between(step)
        if step >= plan.steps:
            break
        share = min(1.0, (step + 1) / _RISE, (plan.steps - step) / max(plan.decay, 1))
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * share
        logits = model(batch.first, batch.second, plan.drop, memory.below(batch.texts))
        loss = functional.binary_cross_entropy_with_logits(logits, batch.same, batch.weight)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(upper + head, 1.0)
        optimiser.step()
        losses.append(loss.item())
        if step % 50 == 49:
            told = f"step {step + 1} of {plan.steps}: loss {np.mean(losses[-50:]):.4f}, "
            sys.stderr.write(f"{told}{time.monotonic() - began:.0f} s\n")


def logits_of(model: PairModel, examples: Sequence[Example], texts: Texts) -> list[float]:
    """Returns the logit of each pair."""
    found = [0.0] * len(examples)
    first, second = (
        texts.ids([example.first for example in examples]),
        texts.ids([example.second for example in examples]),
    )
    order = sorted(range(len(examples)), key=lambda n: len(first[n]) + len(second[n]))
    with torch.no_grad():
        for at in range(0, len(order), 64):
            places = order[at : at + 64]
            length = max(len(ids) for n in places for ids in (first[n], second[n]))
            pair = [Texts.padded([side[n] for n in places], length) for side in (first, second)]
            for n, logit in zip(places, model(*pair).tolist(), strict=True):
                found[n] = logit
    return found


def _batches(
    examples: Sequence[Example],
    variations: Variations,
    texts: Texts,
    plan: Plan,
    rng: random.Random,
) -> Iterator[Batch]:
    """Yields batches without end: every round all examples, varied anew, in another order."""
    alike = [example for example in examples if example.same]
    while True:
        items = [*examples, *variations.strangers(int(plan.strangers * len(examples)))]
        for example in rng.sample(alike, int(plan.replaced * len(alike))):
            items += variations.replaced(example)
        for example in rng.sample(alike, int(plan.edited * len(alike))):
            items += variations.edited(example)
        rng.shuffle(items)
        share = sum(item.same for item in items) / len(items)
        for at in range(0, len(items), plan.batch * _POOL):
            pool = items[at : at + plan.batch * _POOL]
            sides = [
                texts.ids([variations.noise(text) for text in side])
                for side in ([i.first for i in pool], [i.second for i in pool])
            ]
            order = sorted(range(len(pool)), key=lambda n: max(len(s[n]) for s in sides))
            cuts = [order[n : n + plan.batch] for n in range(0, len(order), plan.batch)]
            rng.shuffle(cuts)
            for cut in cuts:
                yield _batch(pool, sides, cut, share, rng)


def _batch(
    pool: Sequence[Example],
    sides: Sequence[Sequence[Sequence[int]]],
    places: Sequence[int],
    share: float,
    rng: random.Random,
) -> Batch:
    turned = [rng.random() < 0.5 for _ in places]
    length = max(len(side[n]) for n in places for side in sides)
    first = [sides[turn][n] for n, turn in zip(places, turned, strict=True)]
    second = [sides[not turn][n] for n, turn in zip(places, turned, strict=True)]
    same = torch.tensor([float(pool[n].same) for n in places])
    weight = torch.where(same > 0, 0.5 / share, 0.5 / (1 - share))
    return Batch(Texts.padded(first, length), Texts.padded(second, length), same, weight)
