"""English words that are written in several ways, written in one."""

from __future__ import annotations

import re

_HYPHEN = re.compile(r"(?<=\w)-(?=[^\W\d_])")
_ONE_WORD = re.compile(r"\b(e|wi|on|off|web)[- ](mail|fi|line|site|commerce)(s?)\b")
_ORDINAL = re.compile(r"\b(\d+)(?:st|nd|rd|th)\b")
# Names with signs; what is left of them without is another name.
_SIGNED = (
    (re.compile(r"\bc[ -]sharp\b|\bcsharp\b"), "c#"),
    (re.compile(r"\bf[ -]sharp\b|\bfsharp\b"), "f#"),
    (re.compile(r"\bcpp\b|\bc plus plus\b"), "c++"),
    (re.compile(r"(?<!\w)\.net\b"), "dotnet"),
    (re.compile(r"\bobjective[ -]c\b"), "objective_c"),
    (re.compile(r"\b(node|next|vue|react|express|nuxt|three)\.js\b"), r"\1js"),
)
_OUR = "behavi|neighb|flav|col|lab|fav|hon|hum|od|rum|harb|tum|vap|arm|sav|endeav|val|vig"
_BRITISH = (
    (re.compile(rf"\b((?:dis|un|mis)?(?:{_OUR}))our"), r"\1or"),
    (
        re.compile(r"\b(cent|theat|met|lit|fib|calib|(?:centi|milli|kilo)met|millilit)re(s?)\b"),
        r"\1er\2",
    ),
    (
        re.compile(
            r"\b(recogn|organ|apolog|real|memor|summar|optim|minim|maxim|categor|author|custom|"
            r"final|initial|normal|personal|priorit|special|standard|steril|symbol|synchron|util|"
            r"visual|vapor|emphas|critic|capital|general|local|legal|neutral|harmon|hypnot|immun|"
            r"item|modern|monet|random|revital|serial|social|stabil|token|virtual|"
            r"parallel|victim|fertil|sanit|penal|mobil|hospital|digit|character|central)is"
            r"(e|es|ed|er|ers|ing|ation|ations)\b"
        ),
        r"\1iz\2",
    ),
    (re.compile(r"\b(anal|paral|catal)ys(e|es|ed|er|ing)\b"), r"\1yz\2"),
    (re.compile(r"\b(catal|dial|anal|monol)ogue(s?)\b"), r"\1og\2"),
    (
        re.compile(
            r"\b(travel|cancel|model|label|level|signal|fuel|counsel|dial|channel)l(ed|ing|er|ers)\b"
        ),
        r"\1\2",
    ),
    (re.compile(r"manoeuv(?:re|er)"), "maneuver"),
    (re.compile(r"(?<=rh|pn)oea\b"), "ea"),
    (re.compile(r"\b(an|leuk|ur|hypoglyc|hyperglyc|tox)aemi"), r"\1emi"),
    (re.compile(r"\bhaem"), "hem"),
    (re.compile(r"\b(orthop|p|encyclop)aed"), r"\1ed"),
    (re.compile(r"\boe(?=str|soph|dem)"), "e"),
    (re.compile(r"\banaesth"), "anesth"),
    (re.compile(r"\bfoet"), "fet"),
    (re.compile(r"\b(licen|defen|offen|preten)ce(?=s?\b)"), r"\1se"),
)
_WORDS = {
    "grey": "gray",
    "cheque": "check",
    "cheques": "checks",
    "programme": "program",
    "programmes": "programs",
    "jewellery": "jewelry",
    "plough": "plow",
    "mould": "mold",
    "mouldy": "moldy",
    "aluminium": "aluminum",
    "pyjamas": "pajamas",
    "sceptical": "skeptical",
    "whilst": "while",
    "cosy": "cozy",
    "moustache": "mustache",
    "ageing": "aging",
    "enrol": "enroll",
    "fulfil": "fulfill",
    "tyre": "tire",
    "tyres": "tires",
    "kerb": "curb",
    "mum": "mom",
    "mums": "moms",
    "practise": "practice",
    "practising": "practicing",
    "sulphur": "sulfur",
    "yoghurt": "yogurt",
    "doughnut": "donut",
    "doughnuts": "donuts",
    "fridge": "refrigerator",
    "temp": "temperature",
    "info": "information",
    "ad": "advertisement",
    "ads": "advertisements",
    "advert": "advertisement",
    "adverts": "advertisements",
}
_LISTED = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b")


def spell(lower: str) -> str:
    """Returns a tidy, lower-case English text in American spelling, without hyphens in words."""
    for pattern, name in _SIGNED:
        lower = pattern.sub(name, lower)
    lower = _ORDINAL.sub(r"\1", _ONE_WORD.sub(r"\1\2\3", lower))
    for pattern, name in _BRITISH:
        lower = pattern.sub(name, lower)
    lower = _LISTED.sub(lambda found: _WORDS[found.group()], lower)
    return _HYPHEN.sub(" ", lower)
