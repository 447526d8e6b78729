"""The plain chat template, for models that bring none.

Each message is its role's name, a colon, and its text, ended by an empty line; the prompt ends
with the answerer's name::

    System: Be brief.

    User: Hello

    Assistant:

Every message is tokenised on its own, so that its tokens do not depend on its neighbours.
Such a model may go on with the next "User:" line; callers give ``stop: ["\\nUser:"]``.
"""

from collections.abc import Callable, Sequence
from typing import Final

from parley_inference.engine.base import Message, Role

_NAMES: Final = {Role.SYSTEM: "System", Role.USER: "User", Role.ASSISTANT: "Assistant"}
ANSWER_MARKER: Final = "Assistant:"
# Part of a tokenizer's id: counts made with another plain template are not valid.
VERSION: Final = "plain-1"


def plain_pieces(messages: Sequence[Message], *, answer_marker: bool) -> list[str]:
    """The pieces of a plain prompt, one a message, and the answer's marker."""
    pieces = [f"{_NAMES[message.role]}: {message.content}\n\n" for message in messages]
    return [*pieces, ANSWER_MARKER] if answer_marker else pieces


def render_plain(
    messages: Sequence[Message],
    encode: Callable[[str], list[int]],
    *,
    begin: Sequence[int] = (),
    answer_marker: bool = True,
) -> list[int]:
    """Token ids of a plain prompt; ``begin`` are the ids that a prompt of the model begins with."""
    ids = list(begin)
    for piece in plain_pieces(messages, answer_marker=answer_marker):
        ids += encode(piece)
    return ids
