"""Small, explainable patterns: personal data, and questions whose answer ages.

They look at a bounded head of a text and use no backtracking beyond a token,
so that a hostile question costs microseconds per kilobyte, not seconds.
"""

from __future__ import annotations

import re

_HEAD_CHARACTERS = 32_768

_PERSONAL = (
    # Addresses, accounts, numbers that name a person.
    re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}\.\w{2,}"),
    re.compile(r"(?<![\w.])\+?\d{1,3}[ .\-/]?\(?\d{2,4}\)?[ .\-/]?\d{3}[ .\-/]?\d{2,6}(?![\w.])"),
    re.compile(r"\b[A-Z]{2}\d{2} ?(?:[A-Z0-9]{4} ?){2,7}[A-Z0-9]{1,4}\b"),
    re.compile(r"\b\d{3}-\d{2}-\d{4}\b"),
    re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b"),
    # A person speaking of themselves or of somebody close.
    re.compile(
        r"\b(?:my|our)\s+(?:\w+\s+)?(?:name|address|e-?mail|phone|mobile|number|birthday|age|"
        r"passport|account|balance|salary|income|tax(?:es)?|card|password|pin|iban|order|"
        r"doctor|diagnosis|symptoms?|medication|pregnancy|health|illness|insurance|lawyer|"
        r"wife|husband|partner|girlfriend|boyfriend|son|daughter|child(?:ren)?|kids?|"
        r"mother|father|mom|mum|dad|parents?|brother|sister|boss|employer|landlord|home|house)\b",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:my name is|i am called|i'm called|i live (?:in|at|on)|i work (?:at|for)|"
        r"i was born|i(?:'m| am) \d{1,3}(?: years)?|i(?:'ve| have) (?:been )?diagnosed)\b",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:mein(?:e|en|em|er|es)? "
        r"(?:name|adresse|konto|gehalt|frau|mann|kind(?:er)?|arzt|chef)|"
        r"ich (?:heiße|heisse|wohne|bin \d{1,3})|mon nom|ma femme|mon mari|je m'appelle|j'habite|"
        r"me llamo|mi (?:nombre|esposa|esposo|marido|cuenta)|vivo en)\b",
        re.IGNORECASE,
    ),
)

_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")

_TIME_DEPENDENT = re.compile(
    r"\b(?:"
    r"today(?:'s|’s)?|tonight|tomorrow|yesterday|right now|just now|at the moment|at present|"
    r"currently|nowadays|these days|as of now|up[- ]to[- ]date|so far this|"
    r"this (?:morning|afternoon|evening|week|weekend|month|quarter|season|year)|"
    r"(?:next|last|past|coming) (?:few )?(?:minutes?|hours?|days?|weeks?|weekend|months?|years?|"
    r"monday|tuesday|wednesday|thursday|friday|saturday|sunday|spring|summer|autumn|fall|winter)|"
    r"(?:minutes?|hours?|days?|weeks?|months?|years?) ago|"
    r"latest|most recent(?:ly)?|newest|breaking news|news about|live score|"
    r"what(?:'s|’s| is) (?:the )?(?:time|date|day)"
    r"(?= *(?:\?|$|is it|now|in\b|of the (?:week|month)))|"
    r"what (?:time|day|date|year|month) is (?:it|this)|"
    r"what(?:'s|’s| is) (?:the )?weather|weather forecast|"
    r"(?:stock|share|exchange|bitcoin|gold|oil) (?:price|rate)s?|price of (?:bitcoin|gold|oil)|"
    r"current(?!\s+(?:of|in an?|through|flow|density|source|transformer)\b)\s+\w+|"
    r"how (?:long|many (?:days|weeks|months|years)) (?:until|till|since)|"
    r"heute|morgen früh|gestern|gerade eben|derzeit|aktuell(?:e|en|er|es)?|momentan|diese woche|"
    r"wie spät|wie viel uhr|wieviel uhr|"
    r"aujourd['’]hui|demain|hier soir|en ce moment|actuellement|quelle heure|"
    r"hoy|mañana por|ayer|ahora mismo|actualmente|qué hora"
    r")\b",
    re.IGNORECASE,
)


def is_time_dependent(text: str) -> bool:
    """Say whether the answer to `text` is likely to differ when asked later."""
    return _TIME_DEPENDENT.search(text[:_HEAD_CHARACTERS]) is not None


def has_personal_data(text: str) -> bool:
    """Say whether `text` seems to hold something about one person.

    A text too long to be read whole is taken to hold something.
    """
    if len(text) > _HEAD_CHARACTERS:
        return True
    if any(pattern.search(text) for pattern in _PERSONAL):
        return True
    return any(_luhn(match.group()) for match in _CARD.finditer(text))


def _luhn(number: str) -> bool:
    digits = [int(character) for character in number if character.isdigit()]
    total = 0
    for position, digit in enumerate(reversed(digits)):
        doubled = digit * 2 if position % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0
