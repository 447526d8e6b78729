"""English inflection, undone: enough to see that two words are one word."""

from __future__ import annotations

from functools import lru_cache

from parley_cache.semantic.languages.lexicon import words_of

_IRREGULAR = {
    form: lemma
    for line in words_of("en_irregular.txt")
    for lemma, _, forms in [line.partition(":")]
    for form in forms.split()
}
_KEEP = frozenset(words_of("en_invariable.txt"))
_SILENT_E = tuple(words_of("en_silent_e.txt"))
_DERIVED = (
    "ization",
    "isation",
    "ational",
    "ations",
    "ation",
    "ition",
    "iness",
    "ness",
    "ment",
    "ability",
    "ible",
    "able",
    "ance",
    "ence",
    "ings",
    "ing",
    "ised",
    "ized",
    "ise",
    "ize",
    "ingly",
    "edly",
    "ally",
    "ily",
    "ly",
    "ous",
    "ful",
    "ical",
    "ic",
    "al",
    "ions",
    "ion",
    "ity",
    "ive",
    "ure",
    "age",
    "er",
    "or",
    "ist",
    "ed",
    "es",
    "s",
    "y",
    "e",
    "t",
)


@lru_cache(maxsize=65_536)
def english(word: str) -> str:  # noqa: PLR0911, PLR0912 - one ending a branch
    """Returns the dictionary form of an English word, near enough for comparing."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in _KEEP or len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("ied") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    if word.endswith("oes") and len(word) > 4:
        return word[:-2]
    if word.endswith("uses") and len(word) > 6:
        return word[:-2]
    if word.endswith("eed"):
        return word
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return english(word[:-1])
    for ending in ("ing", "ed"):
        root = word[: -len(ending)]
        if word.endswith(ending) and len(root) >= 3 and any(v in root for v in "aeiouy"):
            if root[-1] == root[-2] and root[-1] not in "lsz" and len(root) > 3:
                return root[:-1]
            if _wants_e(root):
                return root + "e"
            return root
    if word.endswith("iest") and len(word) > 5:
        return word[:-4] + "y"
    if word.endswith("ier") and len(word) > 5:
        return word[:-3] + "y"
    return word


def _wants_e(root: str) -> bool:
    if root.endswith(("at", "iz", "is", "v", "c", "g", "u", "bl", "pl", "tl", "dl", "rs", "ns")):
        return not root.endswith(("eat", "oat", "ing", "wis"))
    short = len(root) == 3 and root[-1] not in "aeiouywxrlnt" and root[-2] in "aeiou"
    return short or root.endswith(_SILENT_E)


@lru_cache(maxsize=65_536)
def root(word: str) -> str:
    """Returns what is left of a word without one derivational ending (at least 4 letters)."""
    for ending in _DERIVED:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)].rstrip("i")
    return word


@lru_cache(maxsize=65_536)
def romance(word: str) -> str:
    """Returns a word of French, Spanish, Italian or Portuguese without its plural ending."""
    if len(word) > 4 and word.endswith("s"):
        return word[:-1]
    return word


def as_is(word: str) -> str:
    """Returns the word itself."""
    return word
