"""Options, bounds, titles, engines' choice, and what is not served."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from parley.session.v1 import session_pb2 as pb

from parley_kit.errors import ServiceError
from parley_kit.ids import uuid7
from parley_session.domain.model import CacheMode, HistoryStrategy, WhenBusy
from parley_session.domain.options import AskedOptions, resolve
from parley_session.domain.titles import MAX_DERIVED_TITLE, title_from
from parley_session.principal import principal_of
from parley_session.rpc import from_proto
from parley_session.servicer import SessionServicer
from parley_session.store.base import ListCursor
from support.session_data import START
from support.session_service import completion

Metadata = list[tuple[str, str | bytes]]


def fields_of(error: ServiceError) -> list[str]:
    """The fields that a refusal names."""
    assert error.code == "invalid_request"
    return [item.field for item in error.fields]


# options ----------------------------------------------------------------------


def test_options_not_given_have_the_defaults_of_the_api() -> None:
    options = resolve(AskedOptions())
    assert (options.max_tokens, options.temperature, options.top_p) == (512, 0.7, 1.0)
    assert (options.top_k, options.seed, options.stop) == (0, None, ())
    assert options.history is HistoryStrategy.TRUNCATE
    assert options.cache is CacheMode.USE
    assert options.when_busy is WhenBusy.REJECT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("maxTokens", {"max_tokens": 0}),
        ("maxTokens", {"max_tokens": 131_073}),
        ("temperature", {"temperature": 2.01}),
        ("temperature", {"temperature": float("nan")}),
        ("topP", {"top_p": 0.0}),
        ("topP", {"top_p": 1.01}),
        ("topK", {"top_k": 1001}),
        ("seed", {"seed": 2**63}),
        ("presencePenalty", {"presence_penalty": -2.1}),
        ("frequencyPenalty", {"frequency_penalty": float("inf")}),
        ("stop", {"stop": ("a",) * 5}),
        ("stop.0", {"stop": ("",)}),
        ("stop.1", {"stop": ("a", "b" * 65)}),
        ("responseFormat", {"json_schema": "{" + " " * 16_384}),
        ("historyTurns", {"history_turns": 1001}),
        ("timeoutSeconds", {"timeout_seconds": 0.5}),
        ("timeoutSeconds", {"timeout_seconds": 601}),
    ],
)
def test_an_option_out_of_bounds_is_refused_by_its_name_in_the_api(
    field: str, value: dict[str, Any]
) -> None:
    with pytest.raises(ServiceError) as refused:
        resolve(AskedOptions(**value))
    assert fields_of(refused.value) == [f"options.{field}"]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    request = completion(" ", chat="nobody", run="nothing", max_tokens=0, temperature=9.0)
    with pytest.raises(ServiceError) as refused:
        from_proto.completion(request)
    assert fields_of(refused.value) == [
        "chatID", "runID", "message", "options.maxTokens", "options.temperature",
    ]  # fmt: skip


def test_a_system_prompt_title_and_life_out_of_bounds_are_refused() -> None:
    new = pb.NewChat(title="t" * 201, system="s" * 32_769, model="m" * 201, ttl_seconds=2**32 - 1)
    with pytest.raises(ServiceError) as refused:
        from_proto.completion(completion("hi", new_chat=new))
    assert fields_of(refused.value) == ["title", "system", "model", "ttlSeconds"]


@pytest.mark.parametrize("message", ["", " \n\t", "a\x00b", "ö" * 131_073])
def test_a_message_that_is_blank_too_long_or_holds_nul_is_refused(message: str) -> None:
    with pytest.raises(ServiceError) as refused:
        from_proto.completion(completion(message))
    assert set(fields_of(refused.value)) == {"message"}


def test_a_message_of_the_largest_size_is_taken() -> None:
    assert from_proto.completion(completion("ö" * 131_072)).message == "ö" * 131_072


@pytest.mark.parametrize("key", ["a b", "ä", "\x7f", "a" * 256])
def test_a_key_is_visible_ascii_of_bounded_length(key: str) -> None:
    with pytest.raises(ServiceError) as refused:
        from_proto.completion(completion("hi", idempotency_key=key, body_digest=b"d" * 32))
    assert fields_of(refused.value) == ["Idempotency-Key"]


def test_a_key_comes_with_the_digest_of_its_request() -> None:
    asked = from_proto.completion(
        completion("hi", idempotency_key="~" * 255, body_digest=b"d" * 32, background=True)
    )
    assert asked.key is not None
    assert (asked.key.body_hash, asked.key.background) == ("64" * 32, True)
    with pytest.raises(ServiceError) as refused:
        from_proto.completion(completion("hi", idempotency_key="k"))
    assert fields_of(refused.value) == ["body_digest"]
    assert from_proto.completion(completion("hi")).key is None


@pytest.mark.parametrize("text", ["", "2026-3-1", "20260301", "2026-W10-1", "2026-02-30", "now"])
def test_a_day_has_one_form(text: str) -> None:
    assert from_proto.day("from", "2026-03-01").isoformat() == "2026-03-01"
    with pytest.raises(ServiceError) as refused:
        from_proto.day("from", text)
    assert fields_of(refused.value) == ["from"]


def test_every_method_of_the_contract_is_served() -> None:
    methods = pb.DESCRIPTOR.services_by_name["SessionService"].methods_by_name
    assert {name for name in methods if _is_served(name)} == set(methods)


def _is_served(name: str) -> bool:
    """Whether one of the parts of the servicer has a method of its own."""
    return any(
        name in vars(base)
        for base in SessionServicer.__mro__
        if base.__module__.startswith("parley_session.")
    )


# titles -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "title"),
    [
        ("Hello", "Hello"),
        ("What is a lease? Tell me.", "What is a lease?"),
        ("\n\n  First line \nsecond", "First line"),
        ("Pi is 3.14 or so. Yes", "Pi is 3.14 or so."),
        ("a\t  b", "a b"),
        ("你好。再见", "你好。"),
        ("... what? now", "... what? now"),
        ("word " * 20, " ".join(["word"] * 12) + "…"),
        ("x" * 80, "x" * 59 + "…"),
    ],
)
def test_a_title_is_the_first_sentence_cut_between_words(message: str, title: str) -> None:
    assert title_from(message) == title


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_any_message_makes_a_title_within_its_bound(message: str) -> None:
    title = title_from(message)
    assert 1 <= len(title) <= MAX_DERIVED_TITLE
    assert title == title.strip()
    assert "\n" not in title


# who asks -----------------------------------------------------------------------


def test_tenant_and_user_come_from_the_metadata() -> None:
    metadata: Metadata = [("parley-tenant", "acme"), ("parley-user-bin", "ä".encode())]
    asked = principal_of(metadata)
    assert (asked.tenant, asked.user) == ("acme", "ä")
    owner = principal_of([*metadata, ("parley-as-owner", "1")])
    assert (owner.tenant, owner.user) == ("acme", None)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        [("parley-tenant", "acme")],
        [("parley-user-bin", b"alice")],
        [("parley-tenant", ""), ("parley-user-bin", b"alice")],
        [("parley-tenant", "acme"), ("parley-user-bin", b"")],
        [("parley-tenant", "acme"), ("parley-user-bin", b"\xff")],
        [("parley-tenant", "a" * 129), ("parley-user-bin", b"alice")],
        [("parley-as-owner", "1")],
    ],
)
def test_a_call_that_does_not_say_who_asks_is_refused(metadata: Metadata | None) -> None:
    with pytest.raises(ServiceError) as refused:
        principal_of(metadata)
    assert refused.value.code == "unauthenticated"


# cursors ------------------------------------------------------------------------


def test_a_cursor_comes_back_as_it_was() -> None:
    after = ListCursor(START, uuid7())
    assert from_proto.cursor(from_proto.cursor_text(after)) == after


@given(st.text(min_size=1))
@example("MTI=")
@example("OTk5OTk5OTk5OTk5OTk5OTk5OTkgeA==")
def test_any_other_text_as_cursor_is_refused(text: str) -> None:
    with pytest.raises(ServiceError) as refused:
        from_proto.cursor(text)
    assert fields_of(refused.value) == ["cursor"]


@pytest.mark.parametrize("text", ["", "x", "c-", "c-x", "c--1", "d-1", "c-1234567890", "c-٣"])
def test_what_is_no_message_of_the_chat_has_no_number(text: str) -> None:
    assert from_proto.message_seq("c", text) is None
    assert from_proto.message_seq("c", "c-12") == 12
