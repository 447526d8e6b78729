"""How words may change places and keep their roles."""

from __future__ import annotations

from parley_cache.semantic.analysis import Analysis, Word

DROPPED = frozenset(
    [
        "the",
        "a",
        "an",
        "my",
        "your",
        "his",
        "her",
        "its",
        "our",
        "their",
        ",",
        ".",
        "?",
        "!",
        ":",
        ";",
        "o",
        "os",
        "as",
        "el",
        "la",
        "le",
        "les",
        "un",
        "una",
        "une",
        "der",
        "die",
        "das",
        "den",
        "dem",
        "ein",
        "eine",
        "i",
    ]
)


MOVABLE = frozenset(
    {
        "in",
        "for",
        "with",
        "without",
        "by",
        "from",
        "to",
        "before",
        "after",
        "than",
        "about",
        "of",
        "instead",
        "between",
        "against",
    }
)

BE = frozenset(["is", "are", "was", "were", "be", "been", "being", "get", "gets", "got"])


def keeps_roles(  # noqa: PLR0917 - two words in two questions
    a: Analysis, b: Analysis, x: Word, y: Word, u: Word, v: Word
) -> bool:
    """`x` before `u` became `v` before `y`: says whether grammar tells them apart in both."""
    if moved_phrase(x, y, u, v) or (symmetric(a) and symmetric(b)):
        return True
    if a.passive != b.passive:
        return True
    if coordinated(a, x.place, u.place) and coordinated(b, v.place, y.place):
        return True
    loose = {"of", "for", "in"}
    if v.place + 1 == y.place and u.relation and not v.relation:
        return True
    if x.place + 1 == u.place and y.relation and not x.relation:
        return True
    return (u.relation in loose and v.relation == "") or (x.relation == "" and y.relation in loose)


def moved_phrase(x: Word, y: Word, u: Word, v: Word) -> bool:
    """One of the two moved with the preposition that governs it in both, or is an adverb."""
    if any(w.form.endswith("ly") and w.form == o.form for w, o in ((x, y), (u, v))):
        return True
    if x.relation == y.relation and x.relation in MOVABLE and u.relation != x.relation:
        return True
    return u.relation == v.relation and u.relation in MOVABLE and x.relation != u.relation


SYMMETRIC = frozenset(
    [
        "difference",
        "differ",
        "different",
        "differs",
        "compare",
        "comparison",
        "distinguish",
        "distinguishes",
        "between",
        "together",
        "combine",
        "combined",
        "similar",
        "similarity",
        "unterschied",
        "différence",
        "diferencia",
    ]
)


def symmetric(q: Analysis) -> bool:
    """The question compares or joins: its parts may change places."""
    return not SYMMETRIC.isdisjoint(q.tokens)


def coordinated(q: Analysis, start: int, end: int) -> bool:
    """Says whether "and", "or" or a comma lies between two places."""
    joined = ("and", "or", "und", "oder", "y", "o", "e", "et", "ou", ",")
    return any(token in joined for token in q.tokens[start:end])
