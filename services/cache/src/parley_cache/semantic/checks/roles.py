"""Rules on who does what to whom, from where, before what: told by prepositions and voice."""

from __future__ import annotations

from parley_cache.semantic.alignment import Alignment
from parley_cache.semantic.analysis import OBJECTS, Analysis, Word
from parley_cache.semantic.checks.movement import BE, DROPPED, keeps_roles, symmetric

_OPPOSED = {
    frozenset(pair)
    for pair in (
        ("from", "to"),
        ("before", "after"),
        ("with", "without"),
        ("for", "against"),
        ("without", "for"),
        ("instead", "with"),
        ("to", "by"),
        ("before", "in"),
        ("after", "in"),
        ("instead", "without"),
        ("by", "after"),
        ("by", "before"),
        ("for", "from"),
        ("for", "before"),
        ("to", "of"),
        ("than", "of"),
        ("in", "from"),
        ("for", "after"),
    )
}


_GOVERNING = ("from", "to", "than", "before", "after", "by", "instead", "without", "against")


def direction(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Nobody goes from where the other goes to; before is not after."""
    for x, y in pair.pairs:
        if x.relation != y.relation and frozenset((x.relation, y.relation)) in _OPPOSED:
            return "direction"
    for n, (x, y) in enumerate(pair.pairs):
        for u, v in pair.pairs[n + 1 :]:
            if x.relation == v.relation != u.relation == y.relation:
                return "direction"
    for one, other in (("before", "after"), ("from", "to")):
        for mine, facing in ((a.relations, b.relations), (b.relations, a.relations)):
            only = one in mine and other not in mine and other in facing and one not in facing
            if only and (one == "before" or pair.left or pair.right or len(pair.pairs) < 2):
                return "direction"
    if symmetric(a) and symmetric(b):
        return None
    for relation in _GOVERNING:
        left = {n for n, (x, _) in enumerate(pair.pairs) if x.relation == relation}
        right = {n for n, (_, y) in enumerate(pair.pairs) if y.relation == relation}
        if left and right and left.isdisjoint(right):
            return "direction"
    return None


def persons(a: Analysis, b: Analysis, pair: Alignment) -> str | None:  # noqa: ARG001
    """Who does it to me is not whom I do it to."""
    if a.objects == b.objects:
        return None
    for q in (a, b):
        if q.objects:
            for n, token in enumerate(q.tokens):
                before = q.tokens[n - 1] if n else ""
                asked_for = before in _GIVING and n <= 3
                let = before in _LETTING and (n <= 3 or before.startswith("tell"))
                if token in OBJECTS and not asked_for and not let:
                    return "role_swap"
    return None


_LETTING = frozenset(("let", "make", "makes", "help", "tell", "tells"))
_GIVING = frozenset(
    ["tell", "write", "give", "show", "send", "help", "let", "make", "get", "explain"]
)


def subject(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Who acted is not whom somebody acted on: "who beat X" and "who did X beat"."""
    if a.passive or b.passive:
        return None
    if a.asks[0] == b.asks[0] == "who" and _after_who(a) != _after_who(b):
        return "role_swap"
    if a.asks[0] == b.asks[0] == "which":
        helped = [_DO.intersection(q.tokens[1:4]) for q in (a, b)]
        plain = [q for q, found in zip((a, b), helped, strict=True) if not found]
        if len(plain) == 1 and _AUXILIARY.isdisjoint(plain[0].tokens[:6]):
            return "role_swap"
    for mine, other, swapped in ((a, b, False), (b, a, True)):
        if mine.asks[0] == other.asks[0] == "yes_no" and mine.tokens[1:2] in _SPEAKERS:
            if other.tokens[0] not in _ACTIVE or "be" in other.tokens or "i" in other.tokens:
                continue
            first = other.words[0] if other.words and other.words[0].place <= 2 else None
            if other.tokens[1] in ("you", "we", "it", "they", "one"):
                continue
            for x, y in pair.pairs:
                here, there = (y, x) if swapped else (x, y)
                if there is first and here.place != 2:
                    return "role_swap"
    return None


_SPEAKERS = (("i",), ("we",), ("you",))


def actor(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Whom I did it to in one question does it in the other."""
    for mine, other, pairs in ((a, b, pair.pairs), (b, a, tuple((y, x) for x, y in pair.pairs))):
        if other.passive or mine.passive:
            continue
        subject_place = _subject(other)
        for x, y in pairs:
            if y.place != subject_place:
                continue
            for u, v in pairs:
                acting = u.place > 0 and mine.tokens[u.place - 1] in _I
                passive = other.tokens[v.place - 1] in BE if v.place else False
                if acting and not passive and u.place < x.place and v.place > y.place:
                    return "role_swap"
    return None


def bystander(a: Analysis, b: Analysis, pair: Alignment) -> str | None:  # noqa: ARG001
    """What I may do with what is mine is not what somebody else may do with it or theirs."""
    for mine, other in ((a, b), (b, a)):
        theirs = not _THEIRS.isdisjoint(other.tokens) and _THEIRS.isdisjoint(mine.tokens)
        if theirs and {"my", "i", "me"} & set(mine.tokens) and "my" not in other.tokens:
            return "role_swap"
        yours = "your" in other.tokens and "you" not in other.tokens
        if yours and "my" in mine.tokens and "your" not in mine.tokens:
            return "role_swap"
        i_act = "i" in mine.tokens and "i" not in other.tokens
        others = not _OTHERS.isdisjoint(other.tokens) and _OTHERS.isdisjoint(mine.tokens)
        if i_act and others and {"my", "mine", "me"} & set(other.tokens):
            return "role_swap"
    return None


_THEIRS = frozenset(("his", "he", "him"))
_OTHERS = frozenset(("someone", "somebody", "anyone", "anybody", "people", "he", "she", "they"))


def belonging(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """What is of something is of the same thing in both: my neighbour's car, or their tree."""
    partner = {x.place: y.place for x, y in pair.pairs}
    for x, y in pair.pairs:
        if x.relation != "of" or y.relation != "of":
            continue
        heads = [
            max((w.place for w in q.words if w.place < word.place), default=-1)
            for q, word in ((a, x), (b, y))
        ]
        known = heads[0] in partner and heads[1] in partner.values()
        if known and partner[heads[0]] != heads[1] and "of" in _around(a, x) & _around(b, y):
            return "role_swap"
    return None


def _around(q: Analysis, word: Word) -> frozenset[str]:
    return frozenset(q.tokens[max(0, word.place - 3) : word.place])


def voice(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Who acts in a passive sentence, behind `by`, comes first in the active one."""
    if any(_turned(a, x, b, y, pair) for x, y in pair.pairs):
        return "role_swap"
    if a.passive == b.passive:
        return None
    pairs = pair.pairs if b.passive else tuple((y, x) for x, y in pair.pairs)
    first = min((x.place for x, _ in pairs), default=0)
    for x, y in pairs:
        if y.relation == "by" and x.relation == "" and x.place != first:
            return "role_swap"
    return None


def possessor(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """My dog is not my neighbour's dog, though both are spoken of."""
    for mine, other, pairs in ((a, b, pair.pairs), (b, a, tuple((y, x) for x, y in pair.pairs))):
        for x, y in pairs:
            owned = "of" in mine.tokens[x.place + 1 : x.place + 2]
            ours = y.place > 0 and other.tokens[y.place - 1] in ("my", "our")
            if not owned or not ours or "of" in other.tokens[y.place + 1 : y.place + 2]:
                continue
            if any(
                x.place < u.place <= x.place + 3 and u.relation == "of" and v.relation != "of"
                for u, v in pairs
            ):
                return "role_swap"
    return None


_HELPING = frozenset(["do", "does", "did", "can", "should", "will", "would", "must"])


def _subject(q: Analysis) -> int:
    """The place of the word behind `does`, `do` or `did`; -1 where there is none."""
    for place, token in enumerate(q.tokens):
        if token in _HELPING and q.tokens[place + 1 : place + 2] not in (("i",), ("you",), ("we",)):
            rest = place + 1
            while rest < len(q.tokens) and q.tokens[rest] in DROPPED - {"i"}:
                rest += 1
            return rest
    return -1


_DO = frozenset(("do", "does", "did"))


_AUXILIARY = frozenset(
    [
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "can",
        "could",
        "should",
        "would",
        "will",
        "must",
        "has",
        "have",
        "had",
        "how",
        "do",
        "does",
        "did",
    ]
)


_I = frozenset(("i", "we", "you", "to", "someone", "somebody", "anyone"))


_ACTIVE = frozenset(("can", "did", "do", "does", "must", "will", "should", "would"))


def _after_who(q: Analysis) -> bool:
    for place, token in enumerate(q.tokens[:-1]):
        if token in ("who", "whom"):
            return q.tokens[place + 1] in ("did", "does", "do")
    return False


def _turned(a: Analysis, x: Word, b: Analysis, y: Word, pair: Alignment) -> bool:
    """The verb is passive on one side alone, and yet no word changed its place around it."""
    passive, active = (x, y) if _suffers(a, x) else (y, x)
    if _suffers(a, x) == _suffers(b, y) or passive.form == active.form:
        return False
    return not any((u.place < x.place) != (v.place < y.place) for u, v in pair.pairs)


def _suffers(q: Analysis, word: Word) -> bool:
    behind_be = word.place > 0 and q.tokens[word.place - 1] in BE
    persons = q.tokens[max(0, word.place - 3) : word.place]
    behind_be = behind_be and not {"i", "we", "you", "being"}.isdisjoint(persons)
    return behind_be and (word.form.endswith(("ed", "en", "n", "t")) and word.form != word.lemma)


def order(a: Analysis, b: Analysis, pair: Alignment) -> str | None:
    """Two words did not change places around a third; opposites did not at all."""
    pack = a.pack
    matched = sorted(pair.pairs, key=lambda p: p[0].place)
    places = [y.place for _, y in matched]
    for n in range(len(matched)):
        for m in range(n + 1, len(matched)):
            if places[n] < places[m]:
                continue
            (x, y), (u, v) = matched[n], matched[m]
            if keeps_roles(a, b, x, y, u, v):
                continue
            if pack and (x.lemma, u.lemma) in pack.antonyms:
                return "role_swap"
            if not any(places[m] < places[k] < places[n] for k in range(n + 1, m)):
                continue
            if _clauses(a, x.place, u.place) or _clauses(b, v.place, y.place):
                continue
            return "role_swap"
    return None


def _clauses(q: Analysis, start: int, end: int) -> bool:
    return any(token in (".", "?", "!", ";", ":", ",") for token in q.tokens[start:end])
