"""Keys: what must differ differs, what is only formatting does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_cache.keys import encode_fields, entry_key
from parley_cache.model import Scope
from parley_cache.normalise import normalise_question
from support.cache_store import digest, query

CHANGES: dict[str, Any] = {
    "tenant": "globex",
    "scope": Scope.GLOBAL,
    "user": "bob",
    "model": "big",
    "model_revision": "r2",
    "options_digest": digest("other options"),
    "system_digest": digest("other system"),
    "context_fingerprint": digest("other context"),
    "context_messages": 2,
    "question": "What is an egret?",
}


@pytest.mark.parametrize("field", CHANGES)
def test_each_part_of_a_query_changes_its_key(field: str) -> None:
    one, two = entry_key(query()), entry_key(query(**{field: CHANGES[field]}))
    assert one.entry_id != two.entry_id
    assert one.check != two.check


def test_every_field_of_a_query_is_part_of_its_key() -> None:
    fields = {field.name for field in dataclasses.fields(query())}
    parts = {field.name for field in dataclasses.fields(query().partition)}
    assert set(CHANGES) == (fields | parts) - {"partition"}


def test_a_key_holds_no_text() -> None:
    key = repr(entry_key(query("very secret question", tenant="acme-tenant", user="ann-user")))
    assert not any(word in key for word in ("secret", "acme", "ann", "smol"))


def test_text_does_not_slide_from_one_field_into_the_next() -> None:
    assert entry_key(query(model="ab", model_revision="c")) != entry_key(
        query(model="a", model_revision="bc")
    )
    assert entry_key(query(tenant="ab", user="c")) != entry_key(query(tenant="a", user="bc"))


@given(st.lists(st.binary(max_size=12), max_size=5), st.lists(st.binary(max_size=12), max_size=5))
def test_different_tuples_are_encoded_differently(one: list[bytes], two: list[bytes]) -> None:
    assert (encode_fields(*one) == encode_fields(*two)) == (one == two)


@pytest.mark.parametrize(
    "spelling",
    [
        "What's the capital of the Côte d’Or?",
        "  What's the capital of the Côte d’Or?  ",
        "What's  the\tcapital of   the Côte d’Or?\n",
        "\r\n\r\nWhat's the capital of the Côte d’Or?\r\n",
        "What's the capital of the Co\u0302te d’Or?",
        "What's\u00a0the capital\u2003of the Côte d’Or?",
    ],
)
def test_formatting_does_not_matter(spelling: str) -> None:
    assert entry_key(query(spelling)) == entry_key(query("What's the capital of the Côte d’Or?"))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Who polishes it?", "Who Polishes it?"),
        ("Is it safe?", "Is it safe."),
        ("Let's eat, grandma", "Let's eat grandma"),
        ("What is x²?", "What is x2?"),
        ("if a:\n    b\nc", "if a:\n    b\n    c"),
        ("one\ntwo", "one two"),
        ("```\na  b\n```", "```\na b\n```"),
        ("```\na \n```", "```\na\n```"),
        ("How many spaces are in 'a  b'?", "How many spaces are in 'a b'?"),
        ("What does `x  y` do?", "What does `x y` do?"),
        ('Print "a  b"', 'Print "a b"'),
        ("now here", "nowhere"),
    ],
)
def test_meaning_matters(one: str, two: str) -> None:
    assert entry_key(query(one)) != entry_key(query(two))


@given(st.text(max_size=200))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise_question(text)
    assert normalise_question(once) == once


@given(st.text(alphabet="ab `~\n\t'\"", max_size=60))
def test_normalising_keeps_every_visible_character(text: str) -> None:
    assert "".join(normalise_question(text).split()) == "".join(text.split())
