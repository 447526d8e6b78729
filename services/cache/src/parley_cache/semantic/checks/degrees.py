"""A rule on degrees: big, bigger and biggest are three questions."""

from __future__ import annotations

import re

from parley_cache.semantic.alignment import Alignment
from parley_cache.semantic.analysis import Analysis, Word
from parley_cache.semantic.languages.pack import words

_UTMOST = words(
    "last final first recent newest most least best worst maximum max minimum min top record "
    "earliest latest at_most at_least favorite ideal optimal ultimate leading number main primary "
    "largely"
)
# Forms that look like superlatives and are none.
_PLAIN = words(
    "test rest west east best guest request contest forest interest harvest invest protest arrest "
    "chest nest quest honest modest digest suggest manifest latest conquest southwest northwest "
    "northeast southeast midwest pest vest fest infest ingest divest attest budapest everest"
)
# Comparatives that stand beside a noun in Romance languages: "más grande", "plus grand".
_ROMANCE = {
    "fr": words("plus moins mieux meilleur meilleure pire"),
    "es": words("más menos mejor peor mayor menor"),
    "it": words("più meno migliore peggiore maggiore minore meglio"),
    "pt": words("mais menos melhor pior maior menor"),
}
_GERMANIC = {
    "de": re.compile(r"\w{3,}(?:st|ßt)(?:e|en|er|es|em)$"),
    "nl": re.compile(r"\w{3,}ste?$"),
}
_GERMANIC_PLAIN = words(
    "erste ersten erster erstes kosten kostet beste besten liste listen küste gäste gast post "
    "eerste kost moet wurst durst angst dienst dienste dienstes herbst fest feste festen gestern"
)


def degrees(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """What is the most of its kind is not one of the kind, nor more than another."""
    pack = a.pack
    if pack is None or a.pack is not b.pack:
        return None
    if pack.code in _ROMANCE:
        more = _ROMANCE[pack.code]
        graded = {more.isdisjoint(q.tokens) for q in (a, b)}
        return "comparative" if len(graded) > 1 else None
    if pack.code in _GERMANIC:
        return (
            "comparative"
            if any(
                _utmost(x, pack.code) != _utmost(y, pack.code)
                for x, y in pair.pairs
                if x.form != y.form
            )
            else None
        )
    for mine, other, pairs in ((a, b, pair.pairs), (b, a, tuple((y, x) for x, y in pair.pairs))):
        for x, y in pairs:
            if _superlative(mine, x) and not _superlative(other, y) and not _extreme(other):
                return "comparative"
            if _graded(mine, x) and _plainly(other, y) and "than" in mine.relations:
                return "comparative"
    return None


def _utmost(word: Word, code: str) -> bool:
    return word.form not in _GERMANIC_PLAIN and bool(_GERMANIC[code].match(word.form))


def _superlative(q: Analysis, word: Word) -> bool:
    if word.form.endswith("est") and word.form != word.lemma and word.form not in _PLAIN:
        return True
    return word.place > 0 and q.tokens[word.place - 1] in ("most", "least")


def _graded(q: Analysis, word: Word) -> bool:
    inflected = word.form.endswith("er") and word.form != word.lemma
    return inflected or (word.place > 0 and q.tokens[word.place - 1] in ("more", "less"))


def _plainly(q: Analysis, word: Word) -> bool:
    """The positive, and no word in the question that compares."""
    compares = {"than", "more", "less"} & set(q.tokens)
    return word.form == word.lemma and not compares and not _extreme(q)


def _extreme(q: Analysis) -> bool:
    return not _UTMOST.isdisjoint(q.present) or any(
        token.endswith("est") and token not in _PLAIN for token in q.tokens
    )
