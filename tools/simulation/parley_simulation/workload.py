"""Chats of many turns, from a seed: the same for every strategy that is compared.

Chats begin by a Poisson process whose rate may change with time; a person reads the answer,
thinks, and asks again. Lengths are lognormal, as chats' are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Rate = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class ChatModel:
    """What chats are like. Lengths in tokens, means; times in seconds."""

    turns: float = 5.0
    most_turns: int = 15
    system: int = 400
    question: float = 80.0
    answer: float = 180.0
    think: float = 12.0
    context: int = 8192


@dataclass(frozen=True, slots=True)
class Turn:
    """One question. `think`: seconds after the answer before, 0 for the first."""

    think: float
    question: int
    answer: int


@dataclass(frozen=True, slots=True)
class Chat:
    """One chat: when it begins and what is asked."""

    id: str
    at: float
    turns: tuple[Turn, ...]


def chats(model: ChatModel, rate: Rate, most: float, seconds: float, seed: int) -> Iterator[Chat]:
    """Yield the chats that begin within `seconds`; `most`: a bound of `rate`, chats a second."""
    rng = random.Random(seed)
    now, number = 0.0, 0
    while (now := now + rng.expovariate(most)) < seconds:
        # Thinning: Lewis and Shedler 1979.
        if rng.random() * most > rate(now):
            continue
        number += 1
        yield Chat(f"chat-{seed}-{number}", now, tuple(_turns(model, rng)))


def _turns(model: ChatModel, rng: random.Random) -> Iterator[Turn]:
    count = 1
    while count < model.most_turns and rng.random() > 1 / model.turns:
        count += 1
    for number in range(count):
        think = rng.expovariate(1 / model.think) + 1.0 if number else 0.0
        yield Turn(think, _lognormal(rng, model.question), min(2000, _lognormal(rng, model.answer)))


def _lognormal(rng: random.Random, mean: float, sigma: float = 0.8) -> int:
    return max(4, round(rng.lognormvariate(math.log(mean) - sigma**2 / 2, sigma)))
