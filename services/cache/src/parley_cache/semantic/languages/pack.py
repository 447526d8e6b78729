"""The form of a language's word lists, and how its phrases are folded together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from parley_cache.semantic.languages.folding import Folding

# What a question asks for. `""` is unknown: it agrees with everything.
HOW, WHY, WHEN, WHERE, WHO, WHICH = "how", "why", "when", "where", "who", "which"
QUANTITY, YES_NO = "quantity", "yes_no"


@dataclass(frozen=True)
class Pack:
    """One language. Words are lower case; phrases are regular expressions on such text.

    `folds` rewrite set phrases, in order, into the fewest words that say the same;
    `lemma` brings a word to the form that the lists and synonyms use.
    """

    code: str
    common: frozenset[str]
    stop: frozenset[str]
    folds: Folding
    negators: frozenset[str]
    modals: Mapping[str, str]
    quantifiers: Mapping[str, str]
    relations: Mapping[str, str]
    asks: tuple[tuple[re.Pattern[str], str], ...]
    tenses: Mapping[str, str]
    number_words: Mapping[str, float]
    languages: Mapping[str, str]
    lemma: Callable[[str], str]
    frame: frozenset[str] = frozenset()
    critical: frozenset[str] = frozenset()
    soft: frozenset[str] = frozenset()
    synonyms: Mapping[str, frozenset[int]] = field(default_factory=dict)
    antonyms: frozenset[tuple[str, str]] = frozenset()
    entities: Mapping[str, str] = field(default_factory=dict)
    phrases: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)

    def fold(self, text: str) -> str:
        """Returns `text`, lower case, with its set phrases folded."""
        return self.folds(text)

    def join(self, tokens: list[str]) -> list[str]:
        """Returns `tokens` with each known phrase of several words as one, joined by "_"."""
        joined: list[str] = []
        lemmas = [self.lemma(token) for token in tokens]
        place = 0
        while place < len(tokens):
            size = self._joinable(tokens, lemmas, place)
            if size == 1:
                joined.append(tokens[place])
            else:
                joined.append("_".join(lemmas[place : place + size]))
            place += size
        return joined

    def _joinable(self, tokens: list[str], lemmas: list[str], place: int) -> int:
        """Returns how many words from `place` on are one phrase; 1 where none is."""
        options = (*self.phrases.get(tokens[place], ()), *self.phrases.get(lemmas[place], ()))
        for phrase in options:
            found = lemmas[place : place + len(phrase)]
            if tuple(found) == phrase:
                return len(phrase)
        return 1


def words(text: str) -> frozenset[str]:
    """Returns the words of a list written as one string."""
    return frozenset(text.split())


def row(text: str) -> list[str]:
    """Returns the words of a list written as one string, in order."""
    return text.split()


def table(text: str) -> dict[str, str]:
    """Returns `{word: class}` from lines `class: word word …`; `_` joins a phrase's words."""
    found: dict[str, str] = {}
    for line in text.strip().splitlines():
        name, _, rest = line.strip().partition(":")
        for word in rest.split():
            found[word] = name.strip()
    return found


def patterns(text: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Returns rewriting rules from lines `pattern => replacement`."""
    rules: list[tuple[re.Pattern[str], str]] = []
    for line in text.strip().splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        left, _, right = line.partition("=>")
        rules.append((re.compile(left.strip()), f" {right.strip()} " if right.strip() else " "))
    return tuple(rules)


def folds(text: str) -> Folding:
    """Returns the rewriting of set phrases from lines of the form of `patterns`."""
    return Folding(patterns(text))


def asked(text: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Returns `(pattern, what is asked)` from lines of the form of `patterns`."""
    return tuple((pattern, plain.strip()) for pattern, plain in patterns(text))
