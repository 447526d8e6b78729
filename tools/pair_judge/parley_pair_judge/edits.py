"""Exact edits of decisive words: each makes of a question one with surely another answer."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from parley_cache.semantic.languages.lexicon import words_of
from parley_cache.semantic.languages.pack import words

_WORD = re.compile(r"[a-z]+")
# Left alone: too often part of a phrase that the opposite would leave without a meaning.
_PHRASAL = words(
    "in out up down over under back front kind like well come go take put give right left lie "
    "even odd fine him her few many work rest part whole light cool whites use want eat find "
    "all none white black major check cover fair support second wake sink fall old server client"
)
_UNITS = (
    "second minute hour day week month year decade",
    "seconds minutes hours days weeks months years decades",
    "daily weekly monthly yearly hourly",
    "millimetres centimetres metres kilometres miles inches feet yards",
    "mm cm km miles inches feet yards",
    "milligrams grams kilograms kilos ounces pounds tonnes",
    "mg grams kg ounces pounds lbs",
    "millilitres litres gallons cups tablespoons teaspoons pints",
    "celsius fahrenheit kelvin",
    "dollars euros pounds yen rupees francs",
    "percent degrees",
    "two three four five six seven eight nine ten twelve twenty thirty fifty hundred thousand",
    "first third fourth fifth last",
    "twice once",
    "half double",
    "january february march april may june july august september october november december",
    "monday tuesday wednesday thursday friday saturday sunday",
    "morning afternoon evening night",
    "spring summer autumn winter",
    "north south east west",
    "breakfast lunch dinner",
    "mother father brother sister daughter son wife husband uncle aunt grandmother boss neighbour",
    "mum dad brother sister daughter son wife husband uncle aunt grandma boss neighbour",
    "landlord tenant",
    "employer employee",
    "lender borrower",
    "seller buyer",
    "teacher student parent",
    "doctor nurse patient pharmacist",
    "toddler teenager adult baby",
    "dog cat horse rabbit hamster parrot",
)
_CAN = (("do", "have to"), ("should", ""), ("must", ""))
_MUST = (("can", ""), ("may", ""), ("am", "allowed to"))
_WHO = r"(?P<who>i|we|he|she|they|(?:my|our|an?|the) [a-z]+)"
_MODALS = (
    (re.compile(rf"^(?:can|could|may) {_WHO} (?=[a-z])", re.I), _CAN),
    (re.compile(rf"^(?:do|does) {_WHO} (?:have|need) to ", re.I), _MUST),
    (re.compile(rf"^must {_WHO} (?=[a-z])", re.I), _MUST),
    (re.compile(rf"^(?:am|is|are) {_WHO} (?:allowed|permitted) to ", re.I), _CAN[:1]),
)
_ASKED = (
    (re.compile(r"^how (?=(do|does|can|should|did) )", re.I), ("Why ", "When ")),
    (re.compile(r"^why (?=(do|does|did|is|are|was) )", re.I), ("When ", "Where ")),
    (re.compile(r"^when (?=(do|does|did|is|are|was|can|should) )", re.I), ("Why ", "Where ")),
    (re.compile(r"^where (?=(do|does|did|is|are|was|can|should) )", re.I), ("Why ", "When ")),
)
_END = r"(?=$|[?.!,;:)]| (?:in|on|by|at|for|with|without|using|and|or|if|when|while|as|via)\b)"
_CHANGE = r"(?:convert|change|turn|translate|switch|transfer|migrate|upgrade|move|swap|exchange)"
_SWAPS = (
    re.compile(rf"\b(?P<pre>from )(?P<a>[\w$€£%.+#-]+)(?P<mid> to )(?P<b>[\w$€£%]+){_END}", re.I),
    re.compile(
        rf"\b(?P<pre>{_CHANGE}(?:ing)? (?:an? |my |the |\d+ )?)(?P<a>[\w+#]+)"
        rf"(?P<mid> (?:in)?to (?:an? |the )?)(?P<b>[\w+#]+){_END}",
        re.I,
    ),
    re.compile(
        rf"(?P<pre>\b)(?P<a>[\w+#]+)(?P<mid> (?:instead of|rather than|into) )(?P<b>[\w+#]+){_END}",
        re.I,
    ),
)

# Two things, each with its article: swapped, they play each other's part.
_PART = re.compile(
    r"\b(?:an?|the|my|our|his|her|their) ([A-Za-z][\w+#-]{2,})"
    r"(?=$|[?.!,;:)]| (?:to|from|of|for|with|without|by|on|in|into|at|if|when|while|after|before"
    r"|than|more|less|be|is|are|was|have|get|the|an?|my|our|who|that)\b)"
)
_EVEN = re.compile(
    r"\b(?:between|and|or|vs|versus|differ|difference|compare|compared|same|distance|far|together|"
    r"both|combine|mix|match|meet|equal|equals|or)\b",
    re.I,
)


class Edits:
    """Edits of a seeded generator; they may leave bad English, never the same question."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._others: Mapping[str, list[str]] = _others()

    def of_both(self, first: str, second: str) -> tuple[str, str] | None:
        """Returns both with a word that they share replaced by one that excludes it, or None."""
        shared = _plain(first) & _plain(second)
        places = sorted(word for word in shared if word in self._others)
        if not places:
            return None
        word = self._rng.choice(places)
        free = [other for other in self._others[word] if other not in _plain(first + " " + second)]
        if not free:
            return None
        other = self._rng.choice(free)
        pattern = re.compile(rf"\b{word}\b", re.I)
        return pattern.sub(other, first), pattern.sub(other, second)

    def of_one(self, text: str) -> str:
        """Returns `text` with who or what swapped, another modal or question word; or ''."""
        found = list(self._turned(text))
        return self._rng.choice(found) if found else ""

    def _turned(self, text: str) -> Iterator[str]:
        for pattern in _SWAPS:
            match = pattern.search(text)
            if match and match["a"].lower() != match["b"].lower():
                made = f"{match['pre']}{match['b']}{match['mid']}{match['a']}"
                yield text[: match.start()] + made + text[match.end() :]
        for pattern, modals in _MODALS:
            match = pattern.match(text)
            if match:
                before, after = self._rng.choice(modals)
                made = " ".join(part for part in (before, match["who"], after) if part)
                yield made[0].upper() + made[1:] + " " + text[match.end() :]
        for pattern, asked in _ASKED:
            if pattern.match(text):
                yield pattern.sub(self._rng.choice(asked), text)
        parts = [] if _EVEN.search(text) else list(_PART.finditer(text))
        if len(parts) > 1:
            one, other = sorted(self._rng.sample(parts, 2), key=lambda part: part.start())
            if one[1].lower() != other[1].lower() and one.end() + 1 < other.start(1):
                between = text[one.end() : other.start(1)]
                yield text[: one.start(1)] + other[1] + between + one[1] + text[other.end() :]


def _plain(text: str) -> set[str]:
    """Returns the words of `text`, but for those that "how" measures: "how long", "how old"."""
    found = _WORD.findall(text.lower())
    return {word for before, word in zip(("", *found), found, strict=False) if before != "how"}


def _others() -> dict[str, list[str]]:
    """Returns, for each word, those that exclude it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    pairs = [line.split() for line in words_of("en_antonyms.txt")]
    for group in (*pairs, *(line.split() for line in _UNITS)):
        for word in group:
            found[word] |= set(group) - {word}
    return {
        word: sorted(others)
        for word, others in found.items()
        if word not in _PHRASAL and _WORD.fullmatch(word) and word != "with"
    }
