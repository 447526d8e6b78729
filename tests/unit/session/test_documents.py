from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st

from parley_session.domain.model import (
    Chat,
    ChatListing,
    Invalidation,
    Message,
    Options,
    Outcome,
    Run,
    Summary,
    Turn,
)
from parley_session.store.documents import chats, fields, messages, records, runs, turns
from support.session_data import make_chat, make_message, make_outcome, make_run, make_turn

AWARE: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
# Kept for queries only; no part of what is read back.
DERIVED = {"busySince", "final"}

times = st.integers(0, 4_000_000_000_000).map(
    lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False)
counts = st.dictionaries(texts, st.integers(0, 2**31), max_size=3)
leaves = {datetime: times, str: texts, int: numbers, float: floats}
for kind, strategy in leaves.items():
    st.register_type_strategy(kind, strategy)


def through_bson(document: fields.Document) -> fields.Document:
    return bson.decode(bson.encode(document), AWARE)


@given(st.builds(Chat, summary=st.none() | st.builds(Summary, tokens=counts)))
def test_a_chat_comes_back_as_it_was(chat: Chat) -> None:
    assert chats.chat_from(through_bson(chats.chat_to(chat))) == chat


@given(st.builds(Turn))
def test_a_turn_comes_back_as_it_was(turn: Turn) -> None:
    assert turns.turn_from(through_bson(turns.turn_to(turn))) == turn


@given(st.builds(Options))
def test_options_come_back_as_they_were(options: Options) -> None:
    assert turns.options_from(through_bson(turns.options_to(options))) == options


@given(st.builds(Message, tokens=counts))
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    assert messages.message_from(through_bson(messages.message_to(message))) == message


@given(st.builds(Run))
def test_a_run_comes_back_as_it_was(run: Run) -> None:
    assert runs.run_from(through_bson(runs.run_to(run))) == run


@given(st.builds(Invalidation))
def test_an_invalidation_comes_back_as_it_was(invalidation: Invalidation) -> None:
    document = through_bson(records.invalidation_to(invalidation))
    assert records.invalidation_from(document) == invalidation


@given(st.builds(Run), st.builds(Outcome))
def test_a_commit_is_read_back_as_its_outcome(run: Run, outcome: Outcome) -> None:
    read = runs.run_from(runs.run_to(run) | runs.outcome_to(outcome))
    for name in Outcome.__dataclass_fields__:
        assert getattr(read, name) == getattr(outcome, name)


@given(texts)
def test_a_tokenizer_id_is_a_plain_field_name(tokenizer: str) -> None:
    key = fields.token_key(tokenizer)
    assert key
    assert not set(key) & {".", "$", "\0"}


@pytest.mark.parametrize(
    ("document", "projection"),
    [
        (chats.chat_to(make_chat(pending=(make_turn(),), expires_at=datetime.now(UTC))),
         chats.CHAT_FIELDS),
        (messages.message_to(make_message("c", 0)), messages.MESSAGE_FIELDS),
        (runs.run_to(make_run()), runs.RUN_FIELDS),
    ],
    ids=["chat", "message", "run"],
)  # fmt: skip
def test_a_projection_names_every_field_that_is_read(
    document: fields.Document, projection: dict[str, int]
) -> None:
    assert set(projection) == set(document) - DERIVED


@pytest.mark.parametrize(
    ("document", "read"),
    [
        (chats.chat_to(make_chat(pending=(make_turn(),))), chats.chat_from),
        (messages.message_to(make_message("c", 0)), messages.message_from),
        (runs.run_to(make_run()) | runs.outcome_to(make_outcome()), runs.run_from),
    ],
    ids=["chat", "message", "run"],
)
def test_fields_of_a_later_version_are_ignored_at_every_depth(
    document: fields.Document, read: Callable[[fields.Document], object]
) -> None:
    def extended(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: extended(item) for key, item in value.items()} | {"later": {"x": [1]}}
        return [extended(item) for item in value] if isinstance(value, list) else value

    plain = {key: value for key, value in document.items() if key != "tokens"}
    assert read(extended(plain)) == read(plain)


def test_fields_that_are_missing_have_the_domains_defaults() -> None:
    needed = {"_id", "tenant", "user", "createdAt", "updatedAt"}
    chat = make_chat()
    document = {k: v for k, v in chats.chat_to(chat).items() if k in needed}
    bare = Chat(chat.id, chat.tenant, chat.user, "", "", "", chat.created_at, chat.updated_at)
    assert chats.chat_from(document) == bare
    assert chats.listing_from(document) == ChatListing(
        chat.id, "", chat.created_at, chat.updated_at, 0
    )


def test_times_are_kept_as_utc_in_whole_milliseconds() -> None:
    at = datetime.fromisoformat("2026-03-01T12:00:00.123999+02:00")
    assert fields.stored_time(at) == datetime(2026, 3, 1, 10, 0, 0, 123000, tzinfo=UTC)
