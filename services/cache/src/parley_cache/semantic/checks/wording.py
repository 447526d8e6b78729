"""Rules on single words: names, opposites, negation, modality, tense."""

# ruff: noqa: ARG001 - every rule has the same form, whatever it looks at
from __future__ import annotations

from parley_cache.semantic.alignment import Alignment
from parley_cache.semantic.analysis import Analysis, Word
from parley_cache.semantic.text import bare


def code(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Identifiers, files and flags on one side appear on the other."""
    for mine, other in ((a, b), (b, a)):
        for item in mine.code:
            if f" {bare(item)} " not in f" {other.bare} " and any(
                part not in other.present for part in item.lower().replace("_", ".").split(".")
            ):
                return "code_identifier"
    return None


def written_apart(a: Analysis, b: Analysis) -> bool:
    """Says whether code on one side is that of the other but for case or signs: `!ok`, `ok`."""
    mine, other = a.verbatim - b.verbatim, b.verbatim - a.verbatim
    return not {bare(item) for item in mine}.isdisjoint(bare(item) for item in other)


def quotes(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Quoted words on one side appear on the other."""
    for mine, other in ((a, b), (b, a)):
        if any(f" {item} " not in f" {other.bare} " for item in mine.quotes):
            return "quoted_text"
    return None


def entities(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Names on one side have a partner on the other."""
    if any(word.entity for word in (*pair.left, *pair.right)):
        return "named_entity"
    return None


def languages(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Both are in one language, and speak of the same languages."""
    if a.pack is not b.pack:
        return "language"
    pack = a.pack
    for mine, other in ((a, b), (b, a)):
        said = {word.lemma for word in other.words}
        for name in mine.languages - other.languages:
            if pack is None or pack.entities.get(name, name) not in said:
                return "target_language"
    return None


def antonyms(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """No word of one side is left over against its opposite on the other."""
    pack = a.pack
    if pack is None:
        return None
    for mine, facing_side, here in ((pair.left, b, a), (pair.right, a, b)):
        for word in mine:
            for facing in facing_side.words:
                opposite = (word.lemma, facing.lemma) in pack.antonyms or (
                    (word.form, facing.form) in pack.antonyms
                )
                if opposite and _times(facing, facing_side) > _times(facing, here):
                    return "antonym"
            missing = facing_side.present - here.present
            if any(
                (form, token) in pack.antonyms
                for token in missing
                for form in (word.lemma, word.form)
            ):
                return "antonym"
            if any(_negated_by_prefix(word.lemma, token) for token in missing):
                return "antonym"
            if any(_negated_by_prefix(word.lemma, facing.lemma) for facing in facing_side.words):
                return "antonym"
    return None


def _times(word: Word, q: Analysis) -> int:
    return sum(w.lemma == word.lemma for w in q.words)


_PREFIXES = (
    "un",
    "in",
    "im",
    "ir",
    "il",
    "dis",
    "non",
    "de",
    "mis",
    "over",
    "under",
    "a",
    "ab",
    "anti",
)


def _negated_by_prefix(a: str, b: str) -> bool:
    long, short = (a, b) if len(a) > len(b) else (b, a)
    return len(short) >= 3 and any(long == prefix + short for prefix in _PREFIXES)


def negation(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Both deny something, and the same words, or neither does."""
    if a.negations != b.negations:
        return "negation"
    if a.negations:
        flags = [(x.negated, y.negated) for x, y in pair.pairs]
        if any(x != y for x, y in flags) and not any(x and y for x, y in flags):
            return "negation_scope"
    return None


_BINDING = frozenset(("must", "should"))
_TIMED = ("when", "where", "quantity")
_MODAL = ("", "yes_no", "which", "who")


def modality(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """May, must and should are three questions (but "how can I" is "how do I")."""
    if a.asks[0] == b.asks[0] == "how" and bool(a.modals - {"can"}) != bool(b.modals - {"can"}):
        # "How should I" is "how do I" here: what is left stands in another clause.
        return "modality"
    if a.asks[0] == b.asks[0] in _TIMED and a.modals and b.modals:
        return "modality" if a.modals.isdisjoint(b.modals) else None
    if a.asks[0] not in _MODAL or b.asks[0] not in _MODAL:
        return None
    if not a.modals or not b.modals:
        if a.asks[0] == b.asks[0] == "yes_no" and not _BINDING.isdisjoint(a.modals ^ b.modals):
            return "modality"
        return None
    return "modality" if a.modals.isdisjoint(b.modals) else None


def quantifiers(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """All, some, none, only, at least and at most are kept."""
    for mine, other in ((a, b), (b, a)):
        extra = mine.quantifiers - other.quantifiers - {"most"}
        if _mostly(mine) and "most" not in other.present:
            return "quantifier"
        extra -= {bound for bound, name in _BOUNDS if name in other.present}
        if "only" in extra and "just" in other.present:
            extra -= {"only"}
        if not other.quantifiers and "any" not in other.present:
            extra -= {"some"}
        if extra:
            return "quantifier"
    return None


_BOUNDS = (("at_least", "minimum"), ("at_most", "maximum"))


def _mostly(q: Analysis) -> bool:
    """Asks of most of a kind ("do most dogs"), which a superlative does not ("most useful")."""
    for place, token in enumerate(q.tokens[:-1]):
        if token == "most" and place <= 2 and q.tokens[place + 1].endswith("s"):  # noqa: S105
            return True
    return False


def comparatives(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Less is not more, and "as … as" is neither."""
    for mine, other in ((a, b), (b, a)):
        if "than" in mine.relations and "than" not in other.relations and "as" in other.tokens:
            return "comparative"
    return "comparative" if a.degrees != b.degrees else None


def tense(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """What was is not what is or will be."""
    for mine, facing in ((a, b), (b, a)):
        may = not mine.modals and facing.modals and mine.asks[0] == facing.asks[0] == "yes_no"
        if may and "past" in mine.tenses and "past" not in facing.tenses:
            return "tense"
    for mine, facing in ((a, b), (b, a)):
        if not _PAST.isdisjoint(mine.tokens) and not _speaks_of_past(facing):
            return "tense"
    for one, other in ((a.tenses, b.tenses), (b.tenses, a.tenses)):
        if "past" in one and "past" not in other and other:
            return "tense"
        if "future" in one and "future" not in other and "past" in other:
            return "tense"
    return None


_PAST = frozenset(("did", "was", "were", "had"))
_PRESENT = frozenset(("is", "are", "am", "do", "does", "will", "can", "must", "should", "to"))


def _speaks_of_past(q: Analysis) -> bool:
    """It has a past form somewhere, or nothing that tells its tense."""
    if not _PAST.isdisjoint(q.tokens) or _PRESENT.isdisjoint(q.tokens):
        return True
    present = ("s", "ing", "er", "est")
    return any(w.form != w.lemma and not w.form.endswith(present) for w in q.words)


def conditions(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """No word that narrows or turns the matter is on one side alone."""
    pack = a.pack
    words = (*pair.left, *pair.right)
    if pack and any(w.lemma in pack.critical or w.form in pack.critical for w in words):
        return "scope"
    return None


def particles(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """To rent is not to rent out; nor is hers theirs, where all other words are the same."""
    for x, y in pair.pairs:
        one, other = (
            _PARTICLES.intersection(q.tokens[w.place + 1 : w.place + 2])
            for q, w in ((a, x), (b, y))
        )
        if x.lemma == y.lemma and one != other:
            return "particle"
    plain = pair.exact == len(pair.pairs) and not (pair.left or pair.right)
    third = _THIRD.intersection(a.tokens) ^ _THIRD.intersection(b.tokens)
    if plain and not third <= _THINGS:
        return "role_swap"
    return None


_PARTICLES = frozenset(("out", "up", "off", "down", "away", "back"))


# Said of things too: "avoid deadlocks", "avoid them".
_THINGS = frozenset(("them",))
_THIRD = frozenset(["he", "she", "him", "her", "his", "hers", "they", "them", "their", "theirs"])
