"""Rules on questions that hold the same words in another order."""

from __future__ import annotations

from collections import Counter

from parley_cache.semantic.alignment import Alignment
from parley_cache.semantic.analysis import Analysis, Word
from parley_cache.semantic.checks.movement import BE, DROPPED, keeps_roles, moved_phrase

_REBUILT = 3


def same_words(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """The very same words in another order are another question, but for two constructions.

    A phrase may move to the front ("in Paris, where …"), and the parts of "x or y" may change
    places.
    """
    one, other = _plain(a), _plain(b)
    if one == other or sorted(one) != sorted(other):
        return None
    size = len(one)
    if any(one[n:] + one[:n] == other for n in range(1, size)):
        return None
    start = next(n for n in range(size) if one[n] != other[n])
    end = next(n for n in range(size, 0, -1) if one[n - 1] != other[n - 1])
    mine, facing = one[start:end], other[start:end]
    for n, token in enumerate(mine):
        if token in _JOINING and [*mine[n + 1 :], token, *mine[:n]] == facing:
            return None
    matched = sorted(pair.pairs, key=lambda p: p[0].place)
    for n, (x, y) in enumerate(matched):
        for u, v in matched[n + 1 :]:
            if y.place > v.place and not moved_phrase(x, y, u, v):
                return "role_swap"
    return None


_JOINING = frozenset(("and", "or", "und", "oder", "y", "o", "e", "et", "ou"))


def _plain(q: Analysis) -> list[str]:
    pack = q.pack
    return [pack.lemma(t) if pack else t for t in q.tokens if t not in DROPPED]


def strict_order(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Where the content words are the very same, their order carries the meaning.

    A swap of roles keeps all words, the small ones too; a paraphrase seldom does. So in
    such a pair words change places only together with the preposition that governs them,
    around a pause, or about "and" and "or".
    """
    if pair.left or pair.right or pair.exact < len(pair.pairs):
        return None
    if _rebuilt(a, b):
        return None
    matched = sorted(pair.pairs, key=lambda p: p[0].place)
    for n, (x, y) in enumerate(matched):
        for u, v in matched[n + 1 :]:
            if y.place <= v.place or keeps_roles(a, b, x, y, u, v):
                continue
            if _pause(a, x.place, u.place) != _pause(b, v.place, y.place):
                continue
            if _expletive(a, x, b, y) or _expletive(b, v, a, u):
                continue
            if _predicate(b, y) or _predicate(a, u):
                continue
            return "role_swap"
    return None


def _rebuilt(a: Analysis, b: Analysis) -> bool:
    """The small words differ by three or more: the sentence was built anew."""
    one, other = (
        Counter(q.tokens[n] for n in set(range(len(q.tokens))) - {w.place for w in q.words})
        for q in (a, b)
    )
    apart = (one - other) + (other - one)
    return sum(count for token, count in apart.items() if token not in DROPPED) >= _REBUILT


def _expletive(a: Analysis, x: Word, b: Analysis, y: Word) -> bool:
    """ "Is it dangerous to mix them" is "is mixing them dangerous"."""
    led = a.tokens[0] in BE and a.tokens[1:2] == ("it",) and x.place == 2
    return led and b.tokens[0] in BE and y is b.words[-1]


def _predicate(q: Analysis, word: Word) -> bool:
    """A participle or adjective behind `be`: "store insulin", "insulin is stored"."""
    return word.place > 1 and q.tokens[word.place - 1] in BE


def _pause(q: Analysis, start: int, end: int) -> bool:
    return any(token in (",", "?", ".", "!", ";", ":") for token in q.tokens[start:end])
