"""Reads the shipped lists of synonyms and opposites."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.resources import files


def read_synonyms(name: str, lemma: Callable[[str], str]) -> dict[str, frozenset[int]]:
    """Returns, for each word, the numbers of the sets it is in."""
    sets: defaultdict[str, set[int]] = defaultdict(set)
    for number, line in enumerate(_lines(name)):
        for entry in line.split():
            word = entry.replace("-", "_")
            sets[lemma(word)].add(number)
            sets[word].add(number)
    return {word: frozenset(numbers) for word, numbers in sets.items()}


def read_phrases(
    name: str, lemma: Callable[[str], str], small: frozenset[str]
) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Returns the entries of several words, by their first; `small` ones begin and end none."""
    found: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for line in _lines(name):
        for entry in line.replace("-", "_").split():
            parts = tuple(map(lemma, entry.split("_")))
            if len(parts) > 1 and all(parts) and not small.intersection((parts[0], parts[-1])):
                found[parts[0]].add(parts)
    return {first: tuple(sorted(rest, key=len, reverse=True)) for first, rest in found.items()}


def read_antonyms(name: str, lemma: Callable[[str], str]) -> frozenset[tuple[str, str]]:
    """Returns pairs of opposites, each in both orders."""
    pairs: set[tuple[str, str]] = set()
    for line in _lines(name):
        words = line.split()
        if len(words) != 2:
            raise ValueError(f"{name}: not a pair: {line!r}")
        for one, other in (words, reversed(words)):
            pairs.add((one, other))
        a, b = lemma(words[0]), lemma(words[1])
        if a != b:
            pairs |= {(a, b), (b, a)}
    return frozenset(pairs)


def read_lines(name: str) -> str:
    """Returns a shipped list as it is written."""
    return files("parley_cache.semantic").joinpath("lexicon", name).read_text(encoding="utf-8")


def words_of(name: str) -> list[str]:
    """Returns the lines of a shipped list, without comments."""
    return list(_lines(name))


def _lines(name: str) -> Iterator[str]:
    for line in read_lines(name).splitlines():
        plain = line.partition("#")[0].strip()
        if plain:
            yield plain
