"""What belongs to somebody else is absent, for every method that takes a caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from parley_session.domain.model import Chat, Message, Principal, Rating, Role, Run
from parley_session.domain.usage import UsageRecord
from parley_session.store.base import Store
from support.session_data import (
    ALICE,
    OWNERS,
    START,
    STRANGERS,
    after,
    make_chat,
    make_message,
    make_run,
    make_turn,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@dataclass(frozen=True, slots=True)
class Belongings:
    """What Alice has."""

    chat: Chat
    message: Message
    run: Run


Call = Callable[[Store, Principal, Belongings], Awaitable[object]]

CALLS: dict[str, Call] = {
    "get_chat": lambda s, p, b: s.get_chat(p, b.chat.id),
    "accept_turn": lambda s, p, b: s.accept_turn(p, b.chat, make_turn(), 8),
    "list_chats": lambda s, p, b: s.list_chats(p, 10, None),
    "set_title": lambda s, p, b: s.set_title(p, b.chat.id, "taken"),
    "mark_deleted": lambda s, p, b: s.mark_deleted(p, b.chat.id, after(1)),
    "get_messages": lambda s, p, b: s.get_messages(p, b.chat.id, 0, 10),
    "get_message": lambda s, p, b: s.get_message(p, b.message.id),
    "rate_message": lambda s, p, b: s.rate_message(p, b.message.id, Rating.DOWN),
    "get_run": lambda s, p, b: s.get_run(p, b.run.id),
    "request_cancel": lambda s, p, b: s.request_cancel(p, b.run.id),
    "sum_usage": lambda s, p, b: s.sum_usage(p, START.date(), START.date()),
}
# They name nothing that has an owner, and are refused to a call that names nobody.
LISTS = {"list_chats", "sum_usage"}


@pytest.fixture
async def belongings(store: Store) -> Belongings:
    chat = make_chat()
    message = make_message(chat.id, 1, role=Role.ASSISTANT)
    run = make_run(chat=chat.id)
    await store.insert_chat(chat)
    await store.insert_message(message)
    await store.insert_run(run)
    await store.insert_usage(UsageRecord(run.id, "acme", "alice", START.date(), runs=1))
    return Belongings(chat, message, run)


def test_every_method_that_takes_a_caller_is_tried() -> None:
    takers = {
        name
        for name, method in vars(Store).items()
        if "principal" in getattr(method, "__annotations__", {})
    }
    assert takers == set(CALLS)


@pytest.mark.parametrize("stranger", STRANGERS, ids=str)
@pytest.mark.parametrize("name", CALLS)
async def test_a_stranger_finds_and_changes_nothing(
    store: Store, belongings: Belongings, name: str, stranger: Principal
) -> None:
    if name in LISTS and stranger.user is None:
        return  # such a call is refused for everybody
    assert not await CALLS[name](store, stranger, belongings)
    assert await store.get_chat(ALICE, belongings.chat.id) == belongings.chat
    assert await store.get_message(ALICE, belongings.message.id) == belongings.message
    assert await store.get_run(ALICE, belongings.run.id) == belongings.run


@pytest.mark.parametrize("owner", OWNERS, ids=str)
@pytest.mark.parametrize("name", CALLS)
async def test_the_owner_and_a_call_that_acts_as_the_owner_find_it(
    store: Store, belongings: Belongings, name: str, owner: Principal
) -> None:
    if name in LISTS and owner.user is None:
        return  # such a call is refused for everybody
    assert await CALLS[name](store, owner, belongings)
