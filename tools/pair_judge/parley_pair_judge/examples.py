"""What the judge is trained on: labelled pairs, and variations of them."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from parley_cache.semantic.languages.pack import words
from parley_pair_judge.edits import Edits

_LANGUAGE = "en"
# What gives the threshold, and what nothing is learnt from.
_HELD, _UNSEEN = "held", "unseen"
_WORD = re.compile(r"[A-Za-z]{3,}|\d+")
_SMALL = words(
    "the for from with and but not are was were been being does did has have had can could should "
    "would will shall may might must you she they your his her its our their this that these "
    "those what which who whom whose when where why how then than also there here down out off "
    "over under into about after before between during without within more most less least very "
    "much many some any all each every both few one two first last please hello hey thanks"
)
_BEFORE = ("hi, ", "please tell me: ", "hey ", "Hello! ", "quick question: ", "can you help me? ")
_AFTER = (" thanks", " please", " Thank you!", " pls")


@dataclass(frozen=True, slots=True)
class Example:
    """Two questions; whether one answer serves both; the group that they are of."""

    first: str
    second: str
    same: bool
    pattern: str


def read_examples(paths: Sequence[Path]) -> tuple[list[Example], list[Example]]:
    """Returns the English pairs to train on, and those of the split `held`.

    A pair of which a text is in `held` or `unseen` too, whatever its case, is in neither.
    """
    train: list[Example] = []
    apart: dict[str, list[Example]] = {_HELD: [], _UNSEEN: []}
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                if row["language"] == _LANGUAGE:
                    example = Example(
                        row["text_a"], row["text_b"], row["label"] == "1", row["pattern"]
                    )
                    apart.get(row["split"], train).append(example)
    kept = {
        text.lower()
        for examples in apart.values()
        for example in examples
        for text in (example.first, example.second)
    }
    return [
        example
        for example in train
        if example.first.lower() not in kept and example.second.lower() not in kept
    ], apart[_HELD]


class Variations:
    """Makes further examples of a set's words, by a seeded generator.

    `words` are the model's vocabulary with its `vectors`, one row a word.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        vocabulary: dict[str, int],
        vectors: npt.NDArray[np.float32],
        rng: random.Random,
    ) -> None:
        self._rng = rng
        self._examples = examples
        self._edits = Edits(rng)
        found = {
            word.lower()
            for example in examples
            for text in (example.first, example.second)
            for word in _WORD.findall(text)
        }
        self._words = sorted(
            w for w in found if w in vocabulary and w not in _SMALL and not w.isdigit()
        )
        self._place = {word: n for n, word in enumerate(self._words)}
        near = vectors[[vocabulary[word] for word in self._words]]
        near = near - near.mean(0)
        self._near = near / np.linalg.norm(near, axis=1, keepdims=True)

    def strangers(self, count: int) -> list[Example]:
        """Returns pairs of questions of two groups: surely not the same."""
        made = []
        for _ in range(count):
            one, other = self._rng.sample(self._examples, 2)
            if one.pattern != other.pattern:
                made.append(Example(one.first, other.second, False, ""))
        return made

    def replaced(self, example: Example) -> list[Example]:
        """Changes a word of a paraphrase on both sides (the same) and on one (a trap)."""
        shared = sorted(
            {w.lower() for w in _WORD.findall(example.first)}
            & {w.lower() for w in _WORD.findall(example.second)}
        )
        shared = [word for word in shared if word.isdigit() or word in self._place]
        if not shared:
            return []
        word = self._rng.choice(shared)
        other = self._other(word)
        if not other:
            return []
        pattern = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
        first, second = pattern.sub(other, example.first), pattern.sub(other, example.second)
        trap = self._rng.choice(((first, example.second), (example.first, second)))
        return [Example(first, second, True, ""), Example(*trap, False, "")]

    def edited(self, example: Example) -> list[Example]:
        """Edits a paraphrase by `edits`: on both sides (the same), on one (a trap)."""
        both = self._edits.of_both(example.first, example.second)
        if both and self._rng.random() < 0.6:
            first, second = both
            trap = self._rng.choice(((first, example.second), (example.first, second)))
            return [Example(first, second, True, ""), Example(*trap, False, "")]
        turned = self._edits.of_one(example.first)
        return [Example(turned, example.second, False, "")] if turned else []

    def _other(self, word: str) -> str:
        """A number, or a word of the kind; the nearest are left out: they may mean the same."""
        if word.isdigit():
            return (
                str(int(word) + self._rng.choice((1, 2, 3, 5, 10, 100))) if len(word) < 10 else ""
            )
        order = np.argsort(-(self._near @ self._near[self._place[word]]))[1:60]
        near = [self._words[n] for n in order if not self._words[n].startswith(word[:4])]
        return self._rng.choice(near[3:40]) if len(near) > 8 else ""

    def noise(self, text: str) -> str:
        """Returns `text` as another would type it: no mark, a greeting, a slip of a key."""
        draw = self._rng.random()
        if draw < 0.06:
            return text.rstrip("?.!")
        if draw < 0.10:
            return self._rng.choice(_BEFORE) + text
        if draw < 0.14:
            return text.rstrip() + self._rng.choice(_AFTER)
        if draw < 0.20:
            at = self._rng.randrange(len(text))
            if text[max(0, at - 1) : at + 2].isalpha():
                return text[:at] + self._rng.choice(("", text[at] * 2)) + text[at + 1 :]
        return text
