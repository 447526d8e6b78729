"""Folding with needles gives what every pattern, tried in turn, gives."""

import re

import pytest

from parley_cache.semantic import text as texts
from parley_cache.semantic.evaluation.pairs import read_pairs
from parley_cache.semantic.languages import by_code, guess
from parley_cache.semantic.languages.folding import Folding
from parley_cache.semantic.languages.lexicon import read_lines
from parley_cache.semantic.languages.needles import needles
from parley_cache.semantic.languages.pack import patterns
from support.embedding import PAIRS

LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl")


def one_by_one(rules: tuple[tuple[re.Pattern[str], str], ...], text: str) -> str:
    for pattern, plain in rules:
        text, count = pattern.subn(plain, text)
        if count:
            text = " ".join(text.split())
    return text


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_labelled_question_is_folded_as_by_each_pattern_in_turn(code: str) -> None:
    pack = by_code(code)
    assert pack is not None
    rules = patterns(read_lines(f"{code}_folds.txt"))
    pairs = read_pairs(PAIRS).of_split("calibrate").pairs[:: 4 if code == "en" else 1]
    lowered = {texts.tidy(text).lower() for pair in pairs for text in (pair.text_a, pair.text_b)}
    mine = [text for text in lowered if guess(text) == code]

    assert mine
    assert [pack.fold(text) for text in mine] == [one_by_one(rules, text) for text in mine]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r"\bget rid of\b", (("get rid of",),)),
        (r"\bwhats\b|\bhows\b", (("hows", "whats"),)),
        (r"\b(who|what) (?:is|are)? ?way", (("way",), ("what", "who"))),
        (r"%", (("%",),)),
        (r"\ba(?:b|)\b", ()),
        (r"(?:hello)?[xyz]+", ()),
        (r"(?!never)x", ()),
        (r"(?:hello){2,3}", (("hello",),)),
        (r"(?:hello){0,3}", ()),
        (r"(?:hello)+?", (("hello",),)),
        (r"in(?=side)\b", (("side",), ("in",))),
        (r"co{2}l[^\]a]?\.\w", ((".",),)),
        (r"(?P<greeting>hello)(?<! no) you", (("hello",), (" you",))),
        # What is not read has none: the pattern is searched for as it is.
        (r"(hello) \1", ()),
        (r"(?>hello) you", ()),
        (r"hello\n", ()),
        (r"(?i)hello", ()),
    ],
)
def test_needles_are_what_a_match_must_hold(pattern: str, found: tuple[object, ...]) -> None:
    assert needles(re.compile(pattern)) == found


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_rule_has_needles(code: str) -> None:
    rules = patterns(read_lines(f"{code}_folds.txt"))

    assert [pattern.pattern for pattern, _ in rules if not needles(pattern)] == []


def test_a_rule_sees_what_the_one_before_it_wrote() -> None:
    fold = Folding(patterns("\\bone\\b => two\n\\btwo\\b => three\n\\bone\\b => never"))

    assert fold("one and two") == "three and three"
