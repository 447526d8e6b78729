"""Counts of messages add up to the prompt, for templates of several kinds."""

from collections.abc import Callable, Sequence

import pytest

from parley_inference.engine.base import Message, RequestRefused, Role
from parley_inference.engine.counting import MessageCounter
from parley_inference.engine.templates import plain_pieces, render_plain

S, U, A = Role.SYSTEM, Role.USER, Role.ASSISTANT


def chatml(messages: Sequence[Message], answer_marker: bool) -> int:
    """ChatML with a default system prompt of 20 tokens; a word is a token."""
    count = 0 if messages[0].role is S else 20
    count += sum(4 + len(message.content.split()) for message in messages)
    return count + 3 * answer_marker


def strict(messages: Sequence[Message], answer_marker: bool) -> int:
    """Folds the system prompt into the first question, and insists on turns."""
    rest = messages[1:] if messages[0].role is S else messages
    if any(message.role is not (A if index % 2 else U) for index, message in enumerate(rest)):
        raise RequestRefused("messages", "roles must alternate")
    if not rest:
        raise RequestRefused("messages", "no question")
    return 1 + sum(2 + len(message.content.split()) for message in messages) + answer_marker


CHATS = [
    [Message(U, "one two three")],
    [Message(S, "be brief"), Message(U, "hello there")],
    [Message(U, "a b"), Message(A, "c d e"), Message(U, "f")],
    [Message(S, "s"), Message(U, "a b"), Message(A, ""), Message(U, "f g h i")],
]


@pytest.mark.parametrize("length", [chatml, strict])
@pytest.mark.parametrize("chat", CHATS)
def test_messages_and_overhead_add_up_to_the_prompt(
    length: Callable[[Sequence[Message], bool], int], chat: list[Message]
) -> None:
    counts = MessageCounter(length).count(chat)
    assert sum(counts.tokens) + counts.overhead == length(chat, True)


def test_a_message_counts_the_same_in_any_chat() -> None:
    counter = MessageCounter(chatml)
    alone = [counter.count([message]).tokens[0] for message in CHATS[2]]
    assert counter.count(CHATS[2]).tokens == alone


def test_the_default_system_prompt_is_overhead_where_none_is_given() -> None:
    counter = MessageCounter(chatml)
    assert counter.count(CHATS[0]).overhead == 23
    assert counter.count(CHATS[1]).overhead == 3


def test_messages_that_are_no_prompt_are_counted_all_the_same() -> None:
    counts = MessageCounter(strict).count([Message(A, "an answer alone")])
    assert counts.tokens == [5]
    assert counts.overhead == 2


def test_the_plain_template_tokenises_each_message_on_its_own() -> None:
    chat = CHATS[3]
    ids = render_plain(chat, lambda text: [len(text)], begin=[0])
    assert ids == [0, *(len(piece) for piece in plain_pieces(chat, answer_marker=True))]
    text = "".join(plain_pieces(chat[:2], answer_marker=True))
    assert text == "System: s\n\nUser: a b\n\nAssistant:"
