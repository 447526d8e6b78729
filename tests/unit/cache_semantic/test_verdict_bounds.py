"""What holds of the verdict for any text."""

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parley_cache.semantic.calibration import read_calibration
from parley_cache.semantic.verdict import Candidate, SecondCheck, dot

CHECK = SecondCheck(read_calibration())

ODD = [
    "",
    " ",
    "?",
    "🤖🤖🤖",
    "\ud800 lone surrogate",
    "\x00\x01\x02",
    "a" * 100_000,
    "not " * 25_000,
    "from a to b " * 9_000,
    "'" * 50_000,
    "$1,000,000.00" * 8_000,
    "``` " * 25_000,
    "` " * 50_000,
    "``" * 50_000 + "x",
    "how do " * 15_000,
    "как " * 20_000,
    "如何" * 50_000,
    "\u202e\u0301\u200d" * 30_000,
    "1." * 50_000,
    "a.b." * 25_000,
    "-" * 100_000,
]


@given(st.text(max_size=200), st.text(max_size=200), st.floats(-1, 1))
@settings(max_examples=300, deadline=None)
def test_any_two_texts_get_the_same_verdict_in_either_order(a: str, b: str, cosine: float) -> None:
    assert CHECK.compare(a, b, cosine) == CHECK.compare(b, a, cosine)


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_a_text_is_always_the_same_as_itself(text: str) -> None:
    assert CHECK.compare(text, text, 1.0).same


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_an_odd_text_is_neither_an_error_nor_a_hit_nor_slow(text: str) -> None:
    began = time.process_time()
    verdict = CHECK.compare(text, "How do I reset my router?", 0.99)

    assert not verdict.same
    assert CHECK.compare(text, text, 1.0).same
    # Not a measurement: a pattern that backtracks takes minutes on these.
    assert time.process_time() - began < 20


@pytest.mark.parametrize("cosine", [math.nan, math.inf, -math.inf])
def test_a_cosine_that_is_no_number_serves_nothing(cosine: float) -> None:
    verdict = CHECK.compare("How do I fix a flat tire?", "How can I mend a flat tyre?", cosine)

    assert not verdict.same
    assert math.isfinite(verdict.cosine)


def test_long_texts_are_compared_for_identity_alone() -> None:
    text = "Please summarise this. " + "The meeting took place on Monday. " * 200

    assert CHECK.compare(text, text + " ", 0.99).same
    assert CHECK.compare(text, text + "Not at all", 0.99).reason == "too_long_to_compare"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("東京から大阪までいくら？", "大阪から東京までいくら？"),
        ("Как сварить борщ?", "Как сварить плов?"),
        ("كيف أغير كلمة المرور؟", "كيف أحذف كلمة المرور؟"),
    ],
)
def test_a_language_without_rules_is_compared_for_identity_alone(a: str, b: str) -> None:
    assert CHECK.compare(a, b, 0.999).reason == "unknown_language"
    assert CHECK.compare(a, a.rstrip("?？؟"), 0.999).same


def test_the_nearest_of_the_candidates_that_agree_is_chosen() -> None:
    near = Candidate("near", "How can I reset my router?", (1.0, 0.0))
    trap = Candidate("trap", "How do I not reset my router?", (1.0, 0.0))
    far = Candidate("far", "How do I bake bread?", (0.0, 1.0))

    chosen, verdict = CHECK.choose("How do I reset my router?", (1.0, 0.0), [far, trap, near])

    assert chosen is near
    assert verdict is not None
    assert verdict.same


def test_the_nearest_candidate_gives_the_reason_of_a_miss() -> None:
    trap = Candidate("trap", "How do I not reset my router?", (1.0, 0.0))
    far = Candidate("far", "How do I bake bread?", (0.0, 1.0))

    chosen, verdict = CHECK.choose("How do I reset my router?", (1.0, 0.0), [far, trap])

    assert chosen is None
    assert verdict is not None
    assert verdict.reason == "negation"


def test_no_candidates_are_no_verdict() -> None:
    assert CHECK.choose("How?", (1.0,), []) == (None, None)


def test_vectors_of_different_length_are_not_alike() -> None:
    assert dot((1.0, 0.0), (1.0,)) == 0.0
