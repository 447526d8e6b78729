"""What one question is made of, as far as the rules look at it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from parley_cache.semantic import text as texts
from parley_cache.semantic.languages import by_code, guess
from parley_cache.semantic.languages.pack import Pack
from parley_cache.semantic.languages.spelling import spell
from parley_cache.semantic.units import unit_of

_MARKS = frozenset('.,;:!?()"-/')
OBJECTS = frozenset(["me", "us", "mir", "mich", "uns"])
_CAPITAL = re.compile(r"[^\W\d_]\w*")
# Relations that reach over a noun phrase only, and the words that do not end it.
_ARTICLES = frozenset(
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
        "this",
        "that",
        "these",
        "those",
        "all",
        "some",
        "any",
        "der",
        "die",
        "das",
        "den",
        "dem",
        "des",
        "ein",
        "eine",
        "einen",
        "einem",
        "einer",
        "mein",
        "meine",
        "meinem",
        "le",
        "la",
        "les",
        "un",
        "une",
        "des",
        "mon",
        "ma",
        "mes",
        "el",
        "los",
        "las",
        "una",
        "mi",
        "tu",
        "su",
        "il",
        "lo",
        "gli",
        "i",
        "mio",
        "mia",
        "o",
        "os",
        "as",
        "um",
        "uma",
        "meu",
        "minha",
        "het",
        "een",
        "mijn",
        "de",
    ]
)


@dataclass(frozen=True, slots=True)
class Word:
    """A content word: its dictionary form, its place, and the preposition that governs it."""

    lemma: str
    form: str
    place: int
    relation: str
    entity: bool
    negated: bool


@dataclass(frozen=True, slots=True)
class Analysis:
    """A question, analysed. `pack` is None where the language is not known."""

    bare: str
    whole: bool
    pack: Pack | None
    words: tuple[Word, ...]
    tokens: tuple[str, ...]
    present: frozenset[str]
    plain: frozenset[str]
    numbers: Mapping[float, int]
    bound: tuple[tuple[float, str], ...]
    units: Mapping[str, frozenset[str]]
    negations: int
    modals: frozenset[str]
    quantifiers: frozenset[str]
    asks: tuple[str, str]
    tenses: frozenset[str]
    degrees: frozenset[str]
    code: frozenset[str]
    verbatim: frozenset[str]
    quotes: frozenset[str]
    entities: frozenset[str]
    languages: frozenset[str]
    passive: bool
    objects: bool
    relations: frozenset[str]


@lru_cache(maxsize=4_096)
def analyse(question: str) -> Analysis:
    """Returns the analysis of `question`; work is bounded by `text.MAX_CHARACTERS`."""
    bare = texts.bare(question)
    tidy = texts.tidy(question)
    whole = len(question) <= texts.MAX_CHARACTERS and "\n\n" not in question.strip()
    lower = tidy[: texts.MAX_CHARACTERS].lower()
    code = guess(lower)
    pack = by_code(code)
    if pack is None or not whole:
        return _opaque(question, bare, tidy, whole=whole and len(lower.split()) <= texts.MAX_WORDS)
    if pack.code == "en":
        lower = spell(lower)
    plain = texts.split(lower)
    tokens = pack.join(texts.split(pack.fold(lower)))
    if len(tokens) > 2 * texts.MAX_WORDS:
        return _opaque(question, bare, tidy, whole=False)
    entities = _entities(tidy, pack)
    numbers, units = _quantities(tokens, pack)
    words, negations = _content(tokens, pack, entities)
    folded = " ".join(tokens)
    return Analysis(
        bare=bare,
        whole=True,
        pack=pack,
        words=words,
        tokens=tuple(tokens),
        plain=frozenset(plain),
        present=frozenset(tokens) | {pack.lemma(token) for token in tokens} | frozenset(plain),
        numbers=numbers,
        bound=_bound(tokens, pack),
        units=units,
        negations=negations,
        modals=frozenset(pack.modals[t] for t in tokens if t in pack.modals),
        quantifiers=frozenset(pack.quantifiers[t] for t in tokens if t in pack.quantifiers),
        asks=_asks(folded, pack),
        tenses=frozenset(pack.tenses[t] for t in plain[:4] if t in pack.tenses),
        objects=bool(OBJECTS.intersection(tokens)),
        relations=frozenset(pack.relations[t] for t in tokens if t in pack.relations),
        degrees=_degrees(tokens),
        code=texts.code_of(tidy),
        verbatim=texts.verbatim_of(question),
        quotes=texts.quotes_of(tidy),
        entities=entities,
        languages=frozenset(pack.languages[t] for t in tokens if t in pack.languages),
        passive=_passive(tokens),
    )


def _opaque(question: str, bare: str, tidy: str, *, whole: bool) -> Analysis:
    nothing: frozenset[str] = frozenset()
    return Analysis(
        bare=bare,
        whole=whole,
        pack=None,
        words=(),
        tokens=tuple(bare.split()),
        present=nothing,
        plain=nothing,
        numbers={},
        bound=(),
        units={},
        negations=0,
        modals=nothing,
        quantifiers=nothing,
        asks=("", ""),
        tenses=nothing,
        degrees=nothing,
        code=texts.code_of(tidy[: texts.MAX_CHARACTERS]),
        verbatim=texts.verbatim_of(question),
        quotes=nothing,
        entities=nothing,
        languages=nothing,
        passive=False,
        objects=False,
        relations=nothing,
    )


def _entities(tidy: str, pack: Pack) -> frozenset[str]:
    """Names, told by their capitals; none where capitals say nothing."""
    capitals: set[str] = set()
    found = list(_CAPITAL.finditer(tidy))
    upper = sum(match.group()[0].isupper() for match in found)
    if pack.code == "de" or (len(found) > 3 and upper > 0.7 * len(found)):
        shouting = upper > 0.7 * len(found)
        return frozenset(
            m.group().lower()
            for m in found
            if not shouting and len(m.group()) > 1 and m.group().isupper()
        )
    for match in found:
        word = match.group()
        before = tidy[: match.start()].rstrip(" \"'(¿¡")
        initial = not before or before[-1] in ".?!:;-,"
        mixed = len(word) > 1 and word[1:] != word[1:].lower()
        starts = initial and not mixed
        lowered = word.lower()
        if (word[0].isupper() and lowered not in ("i", "english") and not starts) or mixed:
            capitals.add(lowered)
    return frozenset(c for c in capitals if c not in pack.stop or c in _LETTERS)


# What is left of contractions, where it is lower case: "vitamin D".
_LETTERS = frozenset("dmst")


def _quantities(
    tokens: list[str], pack: Pack
) -> tuple[Mapping[float, int], Mapping[str, frozenset[str]]]:
    numbers: Counter[float] = Counter()
    units: dict[str, set[str]] = {}
    held: float | None = None
    for place, token in enumerate(tokens):
        value = _value(token, pack)
        after_number = place > 0 and _value(tokens[place - 1], pack) is not None
        found = unit_of(token, after_number=after_number)
        if found is not None:
            units.setdefault(found[0], set()).add(found[1])
        if value is None or (token == "second" and found is not None and after_number):  # noqa: S105
            if held is not None:
                numbers[held] += 1
                held = None
            continue
        spoken = not token[0].isdigit()
        if held is not None and spoken and value in (100.0, 1e3, 1e6, 1e9):
            held *= value
        elif held is not None and spoken and 20 <= held < 100 and held % 10 == 0 and value < 10:
            held += value
        else:
            if held is not None:
                numbers[held] += 1
            held = value
    if held is not None:
        numbers[held] += 1
    return dict(numbers), {name: frozenset(found) for name, found in units.items()}


def _bound(tokens: list[str], pack: Pack) -> tuple[tuple[float, str], ...]:
    """Each number with the word behind it; `one` is a number here."""
    found: list[tuple[float, str]] = []
    for place, token in enumerate(tokens):
        value = 1.0 if token in ("one", "single") else _value(token, pack)
        if value is not None:
            rest = [t for t in tokens[place + 1 : place + 3] if t not in _STATES]
            behind = rest[0] if rest else ""
            if place and tokens[place - 1] in _MONEY:
                behind = tokens[place - 1]  # "$500"
            found.append((value, pack.lemma(behind) if behind.isalpha() else ""))
    return tuple(found)


_MONEY = frozenset(("usd", "eur", "gbp", "jpy", "inr"))
_STATES = ("us", "united_states")  # "100 US dollars"


def _value(token: str, pack: Pack) -> float | None:
    if token in pack.number_words:
        return pack.number_words[token]
    if token[0].isdigit() and token.isascii():
        if token.count(".") <= 1:
            return float(token)
        return float(int(token.replace(".", "")[:15])) + 0.001 * token.count(".")
    return None


def _content(
    tokens: list[str], pack: Pack, entities: frozenset[str]
) -> tuple[tuple[Word, ...], int]:
    words: list[Word] = []
    relation, negations, negating = "", 0, 0
    for place, token in enumerate(tokens):
        if token in pack.negators:
            negations += 1
            negating = 3
        if (
            token in pack.relations
            and token not in entities
            and not (pack.relations[token] == "to" and place and tokens[place - 1] == "how")
        ):
            relation = pack.relations[token]
            continue
        if token in _MARKS:
            relation, negating = "", 0
            continue
        if token in pack.stop and not (token in entities and token not in _ARTICLES):
            behind = place > 0 and tokens[place - 1] in pack.relations and token.endswith("ing")
            joining = token in ("and", "or", "y", "et", "und", "oder")
            if token not in _ARTICLES and not joining and not behind:
                relation = ""
            continue
        if _value(token, pack) is not None or not token[0].isalnum():
            continue
        name = pack.entities.get(token) or pack.entities.get(token.removesuffix("s"), "")
        words.append(
            Word(
                lemma=name or pack.lemma(token),
                form=token,
                place=place,
                relation=relation,
                entity=token in entities,
                negated=negating > 0,
            )
        )
        negating = max(0, negating - 1)
    return tuple(words), negations


def _asks(folded: str, pack: Pack) -> tuple[str, str]:
    for pattern, plain in pack.asks:
        if pattern.search(folded):
            kind, _, detail = plain.partition(":")
            return kind, detail
    return "", ""


def _degrees(tokens: list[str]) -> frozenset[str]:
    found = set()
    for token in tokens:
        if token in (
            "less",
            "least",
            "fewer",
            "fewest",
            "weniger",
            "moins",
            "menos",
            "meno",
            "minder",
        ):
            found.add("less")
        elif token in ("as", "equally"):
            found.add("as") if tokens.count("as") >= 2 else None
    return frozenset(found)


def _passive(tokens: list[str]) -> bool:
    be = {"is", "are", "was", "were", "be", "been", "being", "get", "gets", "got"}
    for place, token in enumerate(tokens[:-1]):
        if token in be and "by" in tokens[place + 1 :]:
            return True
    return False


__all__ = ["Analysis", "Word", "analyse"]
