"""For how long an answer may be given: by the class of its question, with jitter.

| class | examples | lives for |
|---|---|---|
| `time_dependent` | "what is the weather today?" | not kept (`admission`) |
| `slowly_changing` | prices, laws, versions, who holds an office, "best", years to come | short |
| `ordinary` | what is in no other class | the plain time |
| `timeless` | definitions, arithmetic, translations, how something works | long |

The words decide, and where a question has those of two classes the shorter life does. Only
a first turn is timeless: what a later one means depends on what was said before.
"""

from __future__ import annotations

import enum
import random
import re
from dataclasses import dataclass

from parley_cache.model import Query

_HEAD_CHARACTERS = 4_096


class ShelfLife(enum.Enum):
    """How fast the answer to a question ages."""

    SLOWLY_CHANGING = "slowly_changing"
    ORDINARY = "ordinary"
    TIMELESS = "timeless"


_CHANGING = re.compile(
    r"\b(?:"
    # Prices, sizes and ranks of the world as it is.
    r"prices?|costs?|how (?:much|expensive) (?:is|are|does|do)|cheap(?:er|est)?|salar(?:y|ies)|"
    r"wages?|rents?|fares?|fees?|interest rates?|inflation|unemployment|population|gdp|"
    r"market (?:share|cap)|rank(?:ing|ed|s)?|richest|largest company|best|top \d+|popular|"
    r"trend(?:s|ing)?|record holders?|world record|"
    # Offices, laws and organisations.
    r"president|prime minister|chancellor|minister|mayor|governor|ceo|king|queen|pope|champions?|"
    r"who (?:leads|runs|owns|heads)|laws?|legal|illegal|regulations?|tax(?:es)?|minimum wage|"
    r"visa|passport|entry requirements?|election|"
    # Software and products that have versions.
    r"versions?|releases?|released|support(?:s|ed)?|deprecated|end of life|eol|changelog|roadmap|"
    r"install|download|api|sdk|pricing|"
    # Opening hours, timetables, what is alive or open.
    r"opening hours|open on|timetable|schedules?|still|yet|any ?more|no longer|recent(?:ly)?|"
    r"upcoming|new|20[2-9]\d|"
    r"preise?|kostet|kosten|gehalt|bundeskanzler(?:in)?|präsident(?:in)?|gesetze?|steuern?|"
    r"mindestlohn|beste[rns]?|öffnungszeiten|noch|"
    r"prix|coûte|coût|salaire|président|loi|impôts?|meilleure?s?|horaires|"
    r"precio|cuesta|salario|presidente|ley|impuestos?|mejor(?:es)?|horario"
    r")\b",
    re.IGNORECASE,
)

_TIMELESS = re.compile(
    r"\W*(?:please |can you |could you )?(?:"
    r"(?:define|translate|calculate|compute|simplify|solve|factor|differentiate|integrate|"
    r"prove|convert|spell|conjugate|rhyme|explain (?:why|how|the (?:difference|meaning|concept)))"
    r"\b|"
    r"what (?:does|do) .{1,200}\bmean\b|what(?:'s|’s| is) the (?:meaning|definition|plural|"
    r"opposite|capital|square root|sum|product|derivative|integral|difference between|formula|"
    r"chemical (?:formula|symbol)|boiling point|melting point|atomic number)\b|"
    r"what is \d[\d\s.,+*/x×÷^()%-]*\??\W*$|"
    r"how (?:many|much) .{1,60}\b(?:are|is) (?:there )?in an? \w+|"
    r"how (?:do|does|did) .{1,200}\b(?:work|form|fly|swim|breathe|reproduce|evolve)\b|"
    r"why (?:is|are|do|does) (?:the )?(?:sky|sea|ocean|ice|sun|moon|stars?|leaves|water|grass)\b|"
    r"what (?:is|are) an? [\w\s-]{1,40}\W*$|"
    r"who (?:wrote|painted|composed|discovered|invented)\b|"
    r"übersetze|definiere|berechne|was bedeutet|was ist der unterschied|"
    r"traduis|définis|calcule|que signifie|traduce|define|calcula|qué significa"
    r")",
    re.IGNORECASE,
)

# What is somebody's own, or pointed at, is not the world's knowledge.
_OWN = re.compile(r"\b(?:my|our|ours|we|us|your|yours|this|these|those|here)\b", re.IGNORECASE)


def shelf_life_of(query: Query) -> ShelfLife:
    """Say to which class a question that is admitted belongs."""
    text = query.question[:_HEAD_CHARACTERS]
    if _CHANGING.search(text):
        return ShelfLife.SLOWLY_CHANGING
    if query.context_messages or _OWN.search(text):
        return ShelfLife.ORDINARY
    if _TIMELESS.match(text):
        return ShelfLife.TIMELESS
    return ShelfLife.ORDINARY


@dataclass(frozen=True, slots=True)
class Expiry:
    """How long answers are served, drawn longer or shorter by a share of `jitter`.

    Seconds: `ordinary`; `slowly_changing`, at most that; `timeless`, at least that. None:
    as ordinary ones.
    """

    ordinary: float
    jitter: float
    slowly_changing: float | None = None
    timeless: float | None = None

    def seconds(self, life: ShelfLife) -> float:
        """Give the time of a class, before it is drawn."""
        if life is ShelfLife.SLOWLY_CHANGING and self.slowly_changing is not None:
            return min(self.slowly_changing, self.ordinary)
        if life is ShelfLife.TIMELESS and self.timeless is not None:
            return max(self.timeless, self.ordinary)
        return self.ordinary

    def draw(self, life: ShelfLife = ShelfLife.ORDINARY) -> float:
        """Seconds until an entry of a class, stored now, expires."""
        spread = random.uniform(-self.jitter, self.jitter)  # noqa: S311 - not a secret
        return self.seconds(life) * (1.0 + spread)
