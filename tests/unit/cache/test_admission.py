"""Admission: each refusal has its reason, and ordinary answers are kept."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_cache.admission import REFUSALS, AdmissionRules
from parley_cache.model import Offer, Scope
from parley_cache.patterns import has_personal_data, is_time_dependent
from support.cache_store import query

RULES = AdmissionRules(allow_global=True, max_question_bytes=2000, max_answer_bytes=2000)


def offer(**changes: object) -> Offer:
    base = Offer(
        query=query(),
        answer="A wading bird.",
        finish_reason="stop",
        prompt_tokens=5,
        completion_tokens=4,
        source_message_id="m",
        source_chat_id="c",
        source_user="ann",
        temperature=0.7,
        seeded=False,
        stamp="",
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_an_ordinary_answer_is_admitted() -> None:
    assert RULES.refuse_offer(offer()) is None
    assert RULES.refuse_offer(offer(query=query(scope=Scope.GLOBAL, user=""))) is None
    assert RULES.refuse_offer(offer(query=query(context_messages=6))) is None
    assert RULES.refuse_offer(offer(temperature=1.5, seeded=True)) is None


REFUSED = [
    ("truncated", offer(finish_reason="length")),
    ("cancelled", offer(finish_reason="cancelled")),
    ("error", offer(finish_reason="error")),
    ("tool_calls", offer(finish_reason="tool_calls")),
    ("unfinished", offer(finish_reason="whatever")),
    ("empty_answer", offer(answer="")),
    ("empty_answer", offer(answer=" \n\t ")),
    ("temperature", offer(temperature=0.71)),
    ("temperature", offer(temperature=float("nan"))),
    ("answer_too_large", offer(answer="é" * 1001)),
    ("question_too_large", offer(query=query("é" * 1001))),
    ("blank_question", offer(query=query(" \n"))),
    ("not_first_turn", offer(query=query(scope=Scope.GLOBAL, user="", context_messages=2))),
    ("time_dependent", offer(query=query("What's the weather in Oslo today?"))),
    (
        "personal_data",
        offer(query=query("What should I take for my diagnosis?", scope=Scope.GLOBAL, user="")),
    ),
    (
        "personal_data",
        offer(query=query(scope=Scope.GLOBAL, user=""), answer="Write to ann@example.com."),
    ),
]


@pytest.mark.parametrize(("reason", "refused"), REFUSED)
def test_a_refusal_names_its_reason(reason: str, refused: Offer) -> None:
    assert RULES.refuse_offer(refused) == reason


def test_global_scope_is_off_unless_switched_on() -> None:
    rules = dataclasses.replace(RULES, allow_global=False)
    assert rules.refuse_query(query(scope=Scope.GLOBAL, user="")) == "global_scope_off"


def test_every_reason_is_listed() -> None:
    assert {reason for reason, _ in REFUSED} | {"global_scope_off"} == set(REFUSALS)


def test_personal_data_is_kept_in_a_users_own_scope() -> None:
    assert RULES.refuse_query(query("What rhymes with my name, ann@example.com?")) is None


@pytest.mark.parametrize(
    "question",
    [
        "What time is it?",
        "what's the date",
        "Who is the current president of France?",
        "Latest news about the election",
        "What happened yesterday?",
        "How many days until Christmas?",
        "bitcoin price",
        "Wie spät ist es?",
        "Was ist heute los?",
        "Quelle heure est-il ?",
        "What did Apple announce this week?",
    ],
)
def test_a_question_whose_answer_ages_is_recognised(question: str) -> None:
    assert is_time_dependent(question)


@pytest.mark.parametrize(
    "question",
    [
        "What is a heron?",
        "Explain the theory of relativity.",
        "How does an electric current of 2 ampere heat a wire?",
        "What is the time complexity of quicksort?",
        "Write a haiku about autumn.",
        "Translate 'good morning' to French.",
    ],
)
def test_a_timeless_question_is_not(question: str) -> None:
    assert not is_time_dependent(question)


@pytest.mark.parametrize(
    "text",
    [
        "My name is Ann",
        "mail me at a.b+c@mail.example.org",
        "call +49 170 123 4567",
        "card 4111 1111 1111 1111",
        "IBAN DE89 3704 0044 0532 0130 00",
        "the host is 192.168.17.4",
        "Ich heiße Anna",
        "how do I tell my boss?",
        "x" * 40_000,
    ],
)
def test_personal_data_is_recognised(text: str) -> None:
    assert has_personal_data(text)


@pytest.mark.parametrize(
    "text",
    ["What is a heron?", "12345 is a number", "How tall is Everest, 8849 m?", "In 1969"],
)
def test_ordinary_text_is_not_personal(text: str) -> None:
    assert not has_personal_data(text)


@given(st.text(alphabet="0123456789 -+.()@aA", max_size=3000))
def test_no_text_makes_the_patterns_fail(text: str) -> None:
    has_personal_data(text)
    is_time_dependent(text)
