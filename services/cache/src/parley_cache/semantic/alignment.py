"""Which content words of two questions stand for each other."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

from parley_cache.semantic.analysis import Analysis, Word
from parley_cache.semantic.languages.pack import Pack, words
from parley_cache.semantic.languages.stems import root
from parley_cache.semantic.text import within_one_edit
from parley_cache.semantic.units import unit_of


@dataclass(frozen=True, slots=True)
class Alignment:
    """Pairs of words, and what is left of each side (`soft` words apart)."""

    pairs: tuple[tuple[Word, Word], ...]
    left: tuple[Word, ...]
    right: tuple[Word, ...]
    soft: int
    exact: int


def align(a: Analysis, b: Analysis, vocabulary: Collection[str] = ()) -> Alignment:
    """Pairs each word of `a` with a word of `b` that is or means the same.

    `vocabulary` are words known to be spelt right: they are never taken for
    misspellings of each other.
    """
    pack = a.pack
    if pack is None or b.pack is not pack:
        return Alignment((), a.words, b.words, 0, 0)
    free = list(b.words)
    pairs: list[tuple[Word, Word]] = []
    rest = list(a.words)
    exact = 0
    for test in (_equal, _synonym, _derived):
        waiting: list[Word] = []
        for word in rest:
            options = [other for other in free if test(word, other, pack)]
            if not options:
                waiting.append(word)
                continue
            other = min(options, key=lambda o: (o.relation != word.relation, o.place))
            free.remove(other)
            pairs.append((word, other))
            exact += test is _equal
        rest = waiting
    for word in list(rest):
        for other in free:
            if _misspelt(word, other, vocabulary):
                rest.remove(word)
                free.remove(other)
                pairs.append((word, other))
                break
    _compounds(rest, free, pairs)
    _compounds(free, rest, pairs, turned=True)
    left = [w for w in rest if not _said(w, b) and not _in(w, pack.frame)]
    right = [w for w in free if not _said(w, a) and not _in(w, pack.frame)]
    if not left or not right:
        # Nothing stands in the place of what is missing.
        left = _hard(left, a, pack)
        right = _hard(right, b, pack)
    soft = len(rest) + len(free) - len(left) - len(right)
    return Alignment(tuple(pairs), tuple(left), tuple(right), soft, exact)


def _compounds(
    rest: list[Word], free: list[Word], pairs: list[tuple[Word, Word]], *, turned: bool = False
) -> None:
    """Pairs "houseplant" with "house plant": the last part is its partner."""
    for word in list(rest):
        for first, last in pairwise(list(free)):
            joined = last.place == first.place + 1 and word.form in (
                first.form + last.form,
                first.form + last.lemma,
            )
            if joined or (last.place == first.place + 1 and word.lemma == first.form + last.lemma):
                rest.remove(word)
                free.remove(first)
                free.remove(last)
                pairs.append((last, word) if turned else (word, last))
                break


_MOST_SOFT = 2
_NARROWING = frozenset(("without", "before", "after", "against", "than", "instead"))


def related(a: str, b: str, pack: Pack) -> bool:
    """Says whether two dictionary forms are the same, synonyms, or of one root."""
    if a == b:
        return True
    mine, others = pack.synonyms.get(a), pack.synonyms.get(b)
    if mine and others and not mine.isdisjoint(others):
        return (a, b) not in pack.antonyms
    return False


def _equal(a: Word, b: Word, pack: Pack) -> bool:  # noqa: ARG001 - as the other tests
    if a.lemma == b.lemma or a.form == b.form:
        return True
    if min(len(a.lemma), len(b.lemma)) > 2 and a.lemma.rstrip("e") == b.lemma.rstrip("e"):
        return True
    mine, other = unit_of(a.form, after_number=True), unit_of(b.form, after_number=True)
    return mine is not None and mine == other


def _synonym(a: Word, b: Word, pack: Pack) -> bool:
    return related(a.lemma, b.lemma, pack) or related(a.form, b.form, pack)


def _derived(a: Word, b: Word, pack: Pack) -> bool:
    if a.entity and b.entity:
        return False
    if (a.lemma, b.lemma) in pack.antonyms:
        return False
    if pack.code != "en":
        return _same_stem(a.lemma, b.lemma)
    one, other = root(a.lemma), root(b.lemma)
    return (len(one) >= 4 and one == other) or one == b.lemma or other == a.lemma


def _same_stem(a: str, b: str) -> bool:
    """Two inflections of a word, as far as endings tell: "cancelar", "cancelo"."""
    shared = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        shared += 1
    longer = max(len(a), len(b))
    return shared >= 4 and shared >= 0.6 * longer and longer - shared <= 3


def _misspelt(a: Word, b: Word, vocabulary: Collection[str]) -> bool:
    x, y = a.form, b.form
    if min(len(x), len(y)) < 5 or x[0] != y[0] or not (x.isalpha() and y.isalpha()):
        return False
    if a.entity and b.entity:
        return False
    if (x in vocabulary) == (y in vocabulary):
        return False
    return within_one_edit(x, y)


def _in(word: Word, listed: frozenset[str]) -> bool:
    return not word.entity and (word.lemma in listed or word.form in listed)


def _hard(rest: list[Word], q: Analysis, pack: Pack) -> list[Word]:
    """What is left of one side without words that add nothing: at most two, none that narrows."""
    soft = [
        w
        for w in rest
        if (_in(w, pack.soft) or _titled(w))
        and not _narrows(w, rest, q)
        and not _names_a_deed(w, q)
    ]
    return [w for w in rest if w not in soft] if len(soft) <= _MOST_SOFT else rest


def _titled(word: Word) -> bool:
    """The kind of a place or person, said with the name: "Mount Kilimanjaro"."""
    return word.entity and word.lemma in _TITLES


_TITLES = words("mount mt lake river mr mrs ms dr sir saint st city island president king queen")
_DEEDS = words(
    "format file order ship mark sign date schedule program process code type number name measure "
    "plant box rate price limit sentence question host form list call word level order"
)
_DOERS = frozenset(("to", "i", "you", "we", "they", "can", "must", "should"))


def _names_a_deed(word: Word, q: Analysis) -> bool:
    """A noun that adds nothing ("the format") is here a verb that does: "how to format"."""
    return word.lemma in _DEEDS and word.place > 0 and q.tokens[word.place - 1] in _DOERS


def _narrows(word: Word, rest: list[Word], q: Analysis) -> bool:
    """The word stands alone behind a preposition that sets a condition."""
    return word.relation in _NARROWING and not any(
        other.relation == word.relation for other in q.words if other not in rest
    )


def _said(word: Word, other: Analysis) -> bool:
    """The other side says the word too, if only among its small words or twice."""
    return word.form in other.present or word.lemma in other.present
