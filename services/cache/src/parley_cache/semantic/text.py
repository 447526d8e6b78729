"""Text as the second check reads it: normalised, cut into words, code set apart."""

from __future__ import annotations

import re
import unicodedata

from parley_cache.semantic.languages.pack import words

# A text longer than this is compared for identity alone.
MAX_CHARACTERS = 1_500
MAX_WORDS = 160

_QUOTES = str.maketrans(
    {
        "’": "'",
        "‘": "'",
        "ʼ": "'",
        "`": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "«": '"',
        "»": '"',
        "–": "-",
        "—": "-",
        "−": "-",
        "…": "...",
        "°": " degrees ",
        "€": " eur ",
        "£": " gbp ",
        "¥": " jpy ",
        "₹": " inr ",
        "⁄": "/",
    }
)
_HALVES = re.compile(r"(\d) ?½")
_STATES = re.compile(r"\bU\.?S\.?(?:A\.?)?(?![\w.])")
_SPACES = re.compile(r"\s+")
_DOLLAR = re.compile(r"\$ ?(?=\d)")
_THOUSANDS = re.compile(r"(?<=\d)[,\u00a0' ](?=\d{3}(?!\d))")
_WORD = re.compile(
    r"[a-z]+\d[a-z\d]*|[^\W\d_]+(?:_[^\W\d_]+)*(?:'[^\W\d_]{1,2}\b|(?:\+\+|#)(?!\w))?|\d+(?:\.\d+)*|[^\W_]+\d\w*|[%?!.,;:()\-\"+/#=<>*&@|\[\]{}~^]"
)
_MIXED = re.compile(r"\b(?=\w*[a-z])(?=\w*\d)[a-z]\w*", re.IGNORECASE)

_CODE = re.compile(
    r"""
    ```.*?``` | `[^`\n]{1,200}`
    | (?<!\w)--?[A-Za-z][\w-]*(?==|\b)(?<=-\w)?(?:=\S+)?
    | \b[A-Za-z_][\w]*(?:(?:\.|::|->)[A-Za-z_]\w*)+(?:\(\))?
    | \b[A-Za-z_]\w*\(\)
    | \b[a-z]+_[a-z_\d]+\b
    | \b[a-z]+(?:[A-Z][a-z\d]+)+\b
    | \b[A-Z][a-z\d]+(?:[A-Z][a-z\d]+)+\b
    | \b(?:[A-Z]{2,}_)+[A-Z]{2,}\b
    | (?<!\w)[\w-]+\.(?:py|js|ts|json|ya?ml|toml|md|txt|csv|xml|html|css|java|go|rs|c|h
        |cpp|sh|sql|lock|ini|cfg|exe|dll|log)\b
    | \b(?:[A-Z][A-Za-z]*(?:Error|Exception))\b
    """,
    re.VERBOSE | re.DOTALL,
)
# Code as it was written: a block, a span, or brackets and operators that stand alone. A backtick
# within a word is an apostrophe.
_VERBATIM = re.compile(
    r"""
    ```(.*?)``` | (?<!\w)`([^`\n]{1,200})`(?!\w)
    | (?<!\S)([\[({<][\])}>] | !?={1,3} | ::|:=|\?[?.:])(?![^\s?.,!])
    """,
    re.VERBOSE | re.DOTALL,
)
_QUOTED = re.compile(r"\"([^\"\n]{1,200})\"|(?<!\w)'([^'\n]{1,200})'(?!\w)")


def tidy(text: str) -> str:
    """Returns `text` with compatible characters, quotes, spaces and money signs made alike."""
    text = _HALVES.sub(r"\1.5", text[: 4 * MAX_CHARACTERS])
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    text = _STATES.sub("united_states", text)
    text = _DOLLAR.sub(" usd ", text)
    return _SPACES.sub(" ", text).strip()


def bare(text: str) -> str:
    """Returns the letters and digits of `text`, case folded, and the signs that carry meaning."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = [
        c
        if c.isalnum() or c in "+#%$€£/=<>*^&|~@\\-" or unicodedata.category(c)[0] in "MS"
        else " "
        for c in folded
    ]
    return " ".join("".join(kept).split())


def split(text: str) -> list[str]:
    """Returns the words, numbers and marks of a tidy, lower-case text."""
    return _WORD.findall(_THOUSANDS.sub("", text))


# Names in mixed case that are no identifiers.
_BRANDS = words(
    "wifi javascript typescript postgresql mysql sqlite github gitlab youtube whatsapp iphone "
    "ipad macos ios powerpoint paypal linkedin facebook openai chatgpt wordpress latex mongodb "
    "graphql numpy pytorch tensorflow airbnb ebay icloud airpods macbook imac playstation "
    "united_states onedrive mastercard fedex bluetooth hdmi ethernet ebook vscode nodejs nextjs "
)


_LIBRARIES = words("node.js next.js vue.js react.js express.js nuxt.js asp.net")


def code_of(text: str) -> frozenset[str]:
    """Returns what in a tidy text is written like code, without its call brackets."""
    found = (match.group().strip("`").removesuffix("()") for match in _CODE.finditer(text))
    named = (item for item in found if item and item.lower() not in _BRANDS)
    return frozenset(item for item in named if item.lower() not in _LIBRARIES)


def verbatim_of(text: str) -> frozenset[str]:
    """Returns the code that is marked as such in a text, as it is written, but for outer spaces."""
    found = ("".join(filter(None, match.groups())).strip() for match in _VERBATIM.finditer(text))
    return frozenset(item for item in found if item)


def quotes_of(text: str) -> frozenset[str]:
    """Returns the quoted parts of a tidy text, case folded."""
    found = (match.group(1) or match.group(2) or "" for match in _QUOTED.finditer(text))
    return frozenset(bare(item) for item in found if bare(item))


def within_one_edit(a: str, b: str) -> bool:
    """Says whether one letter put in, left out, changed or swapped makes `a` into `b`."""
    if a == b:
        return True
    if abs(len(a) - len(b)) > 1:
        return False
    short, long = sorted((a, b), key=len)
    start = 0
    while start < len(short) and short[start] == long[start]:
        start += 1
    if len(short) < len(long):
        return short[start:] == long[start + 1 :]
    if short[start + 1 :] == long[start + 1 :]:
        return True
    return (
        short[start + 2 :] == long[start + 2 :]
        and short[start : start + 2] == long[start : start + 2][::-1]
    )
