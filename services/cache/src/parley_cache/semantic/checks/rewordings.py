"""Rules on what stays hidden where a sentence was built anew: who acts, which end, how soon."""

# ruff: noqa: ARG001 - every rule has the same form, whatever it looks at
from __future__ import annotations

from itertools import combinations, pairwise

from parley_cache.semantic.alignment import Alignment
from parley_cache.semantic.analysis import Analysis, Word
from parley_cache.semantic.checks.movement import coordinated, moved_phrase, symmetric
from parley_cache.semantic.languages.pack import words

_PERSONS = words(
    "employer employee boss manager worker colleague landlord tenant owner lender borrower doctor "
    "physician nurse patient dentist pharmacist therapist teacher student pupil child kid baby "
    "toddler teenager parent mother father mom mum dad son daughter brother sister husband wife "
    "aunt uncle cousin nephew niece grandma grandpa grandmother grandfather grandparent "
    "spouse partner ex friend neighbor neighbour police officer judge lawyer attorney witness "
    "suspect buyer seller customer client supplier driver passenger guest host person man woman "
    "boy girl sender recipient company insurer bank court interviewer applicant coach"
)
_DATES = words(
    "monday tuesday wednesday thursday friday saturday sunday january february march april may "
    "june july august september october november december christmas easter"
)


def actors(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Two names or persons keep their order, unless grammar says why they do not."""
    if a.passive != b.passive or (symmetric(a) and symmetric(b)):
        return None
    named = [(x, y) for x, y in pair.pairs if _acts(x) and _acts(y)]
    for (x, y), (u, v) in combinations(named, 2):
        if (x.place < u.place) == (y.place < v.place) or moved_phrase(x, y, u, v):
            continue
        if _attribute(x, y) != _attribute(u, v):
            continue
        if coordinated(a, *_span(x, u)) or coordinated(b, *_span(y, v)):
            continue
        if ("of" in a.tokens[slice(*_span(x, u))]) == ("of" in b.tokens[slice(*_span(y, v))]):
            return "role_swap"
    return None


def _acts(word: Word) -> bool:
    return (word.entity or word.lemma in _PERSONS) and word.lemma not in _DATES


def _attribute(x: Word, y: Word) -> bool:
    """ "Women in France" are "French women"."""
    return x.relation != y.relation and "in" in (x.relation, y.relation)


def _span(one: Word, other: Word) -> tuple[int, int]:
    return min(one.place, other.place), max(one.place, other.place)


_LEADING = words("can must should do does did will would is are was were may could")
_SPEAKERS = (("i",), ("we",), ("you",))
_ME = words("i my me we us our")


def subjects(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """What I do to a person is not what the person does; nor is what you do to me."""
    swapped = tuple((y, x) for x, y in pair.pairs)
    for mine, other, pairs in ((a, b, pair.pairs), (b, a, swapped)):
        if mine.passive or other.passive or "be" in mine.tokens or "be" in other.tokens:
            continue
        if mine.tokens[:1] == () or mine.tokens[0] not in _LEADING:
            continue
        if mine.tokens[1:2] in _SPEAKERS and (_reversed(mine, other) or _acted(other, pairs)):
            return "role_swap"
    return None


def _reversed(mine: Analysis, other: Analysis) -> bool:
    """I act on you in one, and you act, on nobody here, in the other."""
    i_act = mine.tokens[1] != "you" and "you" in mine.tokens
    return i_act and other.tokens[1:2] == ("you",) and _ME.isdisjoint(other.tokens)


def _acted(other: Analysis, pairs: tuple[tuple[Word, Word], ...]) -> bool:
    """A person whom somebody acted on is the first to be named, and acts."""
    first = other.words[0] if other.words else None
    if first is None or first.lemma not in _PERSONS or first.place > 2:
        return False
    if other.tokens[0] not in _LEADING or {"i", "we"} & set(other.tokens):
        return False
    return any(y is first and x.place > 2 for x, y in pairs)


_CAUSING = words("cause causes caused causing trigger triggers")


def causes(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """What comes from a thing is caused by it, and does not cause it."""
    swapped = tuple((y, x) for x, y in pair.pairs)
    for mine, other, pairs in ((a, b, pair.pairs), (b, a, swapped)):
        place = next((n for n, token in enumerate(mine.tokens) if token in _CAUSING), -1)
        if place < 0 or mine.passive or not _CAUSING.isdisjoint(other.tokens):
            continue
        for x, y in pairs:
            told = "from" in other.tokens[max(0, y.place - 3) : y.place]
            if told and y.relation == "from" and x.place > place:
                return "role_swap"
    return None


def sources(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """To get one thing from another is not to have both."""
    for mine, other in ((a, b), (b, a)):
        caught = not {"get", "getting", "catch", "catching"}.isdisjoint(mine.tokens)
        told = {"from", "cause", "because", "by", "after", "through"} & other.present
        if caught and "from" in mine.relations and not told and mine.asks[0] == "yes_no":
            return "role_swap"
    return None


def givers(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """A gift from my sister is not a gift for her."""
    for x, y in pair.pairs:
        if x.lemma not in _PERSONS and y.lemma not in _PERSONS:
            continue
        for word, facing in ((x, b), (y, a)):
            if word.relation == "from" and not _TAKEN & facing.present:
                return "direction"
    return None


_TAKEN = words("from of by off receive take catch inherit borrow buy leave")


def kinds(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """All of one kind being of another is not all of the other being of the one."""
    if a.passive or b.passive or any({"is", "it"} <= set(q.tokens) for q in (a, b)):
        return None
    of_all = all("all" in q.quantifiers and q.asks[0] in ("yes_no", "") for q in (a, b))
    plain = a.asks[0] == b.asks[0] == "yes_no" and len(a.words) == len(b.words) == 2
    if not (of_all or plain):
        return None
    nouns = [
        (x, y)
        for x, y in sorted(pair.pairs, key=lambda p: p[0].place)
        if of_all or x.form.endswith("s") or y.form.endswith("s")
    ]
    if len(nouns) < 2:
        return None
    (x, y), (u, v) = nouns[0], nouns[-1]
    return "role_swap" if y.place > v.place and not moved_phrase(x, y, u, v) else None


_HIGH = words("maximum max most longest largest highest biggest latest at_most")
_LOW = words("minimum min least shortest smallest lowest earliest at_least fewest")
_MAY = words("can could may allowed up")
_NEEDS = words("must need needs have should required")


def extremes(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """The most is not the least; what can be is no minimum, what must be no maximum."""
    for mine, other in ((a, b), (b, a)):
        high, low = (not side.isdisjoint(mine.present) for side in (_HIGH, _LOW))
        facing_high, facing_low = (not side.isdisjoint(other.present) for side in (_HIGH, _LOW))
        if high and not low and facing_low and not facing_high:
            return "antonym"
        if facing_high or facing_low or high == low:
            continue
        may, needs = (not side.isdisjoint(other.present) for side in (_MAY, _NEEDS))
        if low and may and not needs and not {"age", "how_old"} & mine.present:
            return "antonym"
        if high and needs and not may and "maximum" in mine.present:
            return "antonym"
    return None


_DONE = words("already after since afterwards")


def sooner(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Before it is done is not once it was; after a time is not within it."""
    for mine, other in ((a, b), (b, a)):
        before = "before" in mine.relations and "before" not in other.relations
        done = not _DONE.isdisjoint(other.present) or {"has", "been"} <= other.present
        if before and done and _DONE.isdisjoint(mine.present):
            return "direction"
        if not {"within", "inside"} & other.present:
            continue
        for token, behind in pairwise(mine.tokens):
            late = token in ("after", "before") and token not in other.present
            if late and behind[0].isdigit():
                return "direction"
    return None


_PAST = words("did was were had got been")
_AHEAD = words("will must going until")
_ONCE = words("ever formerly")


def ahead(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """What happened is not what will or must; what ever was is not what is."""
    for mine, other in ((a, b), (b, a)):
        once = not _ONCE.isdisjoint(mine.plain) and {"are", "is"} & other.plain
        if once and (_ONCE | _PAST | {"have", "has"}).isdisjoint(other.plain):
            return "tense"
        past = not _PAST.isdisjoint(mine.plain) and _AHEAD.isdisjoint(mine.plain)
        if past and not _AHEAD.isdisjoint(other.plain) and _PAST.isdisjoint(other.plain):
            return "tense"
    return None


def counted(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """How many of one in the other is not how many of the other in the one."""
    one, other = _counted(a), _counted(b)
    heads = {(x.place == one) - (y.place == other) for x, y in pair.pairs}
    return "direction" if one and other and heads >= {-1, 1} else None


def _counted(q: Analysis) -> int:
    """The place of the word behind `how_many`; 0 where there is none."""
    return next((n + 1 for n, token in enumerate(q.tokens) if token == "how_many"), 0)  # noqa: S105


def compared(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """What stands behind `than` stands there in both."""
    behind = [
        {w.place for w in q.words if "than" in q.tokens[max(0, w.place - 3) : w.place]}
        for q in (a, b)
    ]
    if not all(behind):
        return None
    met = {(x.place in behind[0], y.place in behind[1]) for x, y in pair.pairs}
    return "direction" if met & {(True, False), (False, True)} and (True, True) not in met else None


def translated(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """From a language is not into it."""
    for x, y in pair.pairs:
        if x.form in a.languages and (x.relation == "from") != (y.relation == "from"):
            return "direction"
    return None
