"""A rule on small words: those that carry meaning are on both sides, or one like them."""

from __future__ import annotations

from parley_cache.semantic.alignment import Alignment
from parley_cache.semantic.analysis import Analysis
from parley_cache.semantic.languages.pack import table

# Words that may stand for each other. A word that is not listed may come and go.
_CLASSES = table(
    """
    while: while during
    unless: unless
    over: over above more_than
    under: under below beneath underneath less_than
    between: between among amongst
    through: through across via
    outside: outside
    against: against
    without: without
    before: before
    until: until till
    after: after since
    because: because
    but: but although though except
    again: again
    someone: someone somebody anyone anybody
    other: other another
    instead: instead_of rather instead
    nobody: nobody nothing none never neither nor
    fewer: few less least fewer
    both: both
    only: only
    him: he him his
    her: she her hers
    them: they them their theirs
    second_person: your yours
    """
)
# What may be left out where the other side says it in another way.
_SAID_OTHERWISE = {
    "while": {"in", "on", "at", "when", "with", "if", "for", "to", "still", "have"},
    "before": {"already", "when"},
    "but": {"while", "and", "yet"},
    "instead": {"substitute", "replace", "swap"},
    "through": {"by", "with", "in", "on", "over"},
    "between": {"and", "of", "from", "or"},
    "until": {"before", "to", "when"},
    "after": {"when", "from", "if", "once", "already", "wait", "now", "follow", "following"},
    "because": {"for", "from", "by", "as", "why", "to", "over"},
    "over": {"for", "in", "on", "to"},
    "under": {"in", "by", "on"},
    "someone": {"person", "people", "one", "you", "i", "is", "are", "be", "a", "their", "they"},
    "him": {"i", "my", "the", "a", "who", "he", "of"},
    "her": {"i", "my", "the", "a", "who", "she"},
    "them": {"i", "my", "the", "a", "who", "someone", "people", "it", "is", "are"},
    "second_person": {"i", "my", "the", "a", "you", "of", "we", "is", "in", "how", "can", "are"},
    "outside": set(),
    "both": {"and"},
    "against": {"relieve", "prevent", "treat"},
}


_FIRST = frozenset(("my", "mine", "our", "ours"))


def small_words(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """No small word that carries meaning is on one side alone."""
    pack = a.pack
    if pack is None or pack.code != "en" or pair.left or pair.right:
        return None
    for mine, other in ((a, b), (b, a)):
        said = {_CLASSES[token] for token in other.tokens if token in _CLASSES}
        for token in mine.tokens:
            name = _CLASSES.get(token, "")
            if not name or name in said:
                continue
            if name == "second_person" and _FIRST.isdisjoint(other.tokens):
                continue
            if _SAID_OTHERWISE.get(name, set()).isdisjoint(other.present):
                return "small_word"
    return None


def opposite_words(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """No word of any kind stands on one side where its opposite stands on the other."""
    pack = a.pack
    if pack is None:
        return None
    first, second = ({pack.lemma(token) for token in q.tokens} for q in (a, b))
    # "A small room look bigger", "a tiny room look larger": each has its own partner.
    met = {x.lemma for x, _ in pair.pairs} | {y.lemma for _, y in pair.pairs}
    mine, other = first - second, second - first
    if any((x, y) in pack.antonyms and not (x in met and y in met) for x in mine for y in other):
        return "antonym"
    return None
