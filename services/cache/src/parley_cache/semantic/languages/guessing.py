"""Which language a question is in, told by its common words."""

from __future__ import annotations

import re

from parley_cache.semantic.languages import english, european
from parley_cache.semantic.languages.pack import Pack

_PACKS: dict[str, Pack] = {pack.code: pack for pack in (english.PACK, *european.PACKS)}
_KNOWN = {code: pack.common | pack.stop for code, pack in _PACKS.items()}
_WORD = re.compile(r"[^\W\d_]+")
# Letters and endings that hardly another of these languages has.
_SIGNS = {
    "de": re.compile(r"[äöüß]|sch"),
    "fr": re.compile(r"[êçœ]|(?<=\w)è(?=\w)|\b[ldjnmsqu]'|eau|est-"),
    "es": re.compile(r"[ñ¿¡]|ción|\bel\b|és\b"),
    "pt": re.compile(r"[ãõ]|ção|ês\b|\bdo\b|\b[mst]eu\b|(?<=\w)(?:nh|lh)[aeo]"),
    "it": re.compile(
        r"\b(?:gli|della|zione)\b|zione|\bè\b|ché\b|(?<=\w)tà\b|\b(?:dell|nell|all|sull|dall|un)'"
    ),
    "nl": re.compile(r"ij|aa|ee"),
}
UNKNOWN = ""


def by_code(code: str) -> Pack | None:
    """Returns what is known of a language, or None."""
    return _PACKS.get(code)


def guess(lower: str) -> str:
    """Returns the code of the language of a lower-case text, or `UNKNOWN`.

    A text without any common word is taken for English where it is plain ASCII.
    """
    found = _WORD.findall(lower)
    if not found:
        return UNKNOWN
    latin = sum(ord(character) < 0x250 for word in found for character in word)
    if latin < 0.8 * sum(map(len, found)):
        return UNKNOWN
    scores = {code: sum(w in known for w in found) for code, known in _KNOWN.items()}
    signs = {code: len(_SIGNS[code].findall(lower)) for code in _SIGNS}
    best = max(scores, key=lambda code: (scores[code] + signs.get(code, 0), code == "en"))
    if scores[best] == 0:
        return "en" if lower.isascii() and len(found) <= 6 else UNKNOWN
    if best != "en" and scores[best] < 2 and lower.isascii() and scores["en"] >= scores[best]:
        return "en"
    if scores[best] < 0.12 * len(found):
        return UNKNOWN
    return best
