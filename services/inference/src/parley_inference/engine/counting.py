"""Counts the tokens of each message of a prompt, through the model's own chat template.

A message's count is what a prompt grows by when the message is added to a small chat, so it holds
for that message in any chat and can be stored with it. The rest of a prompt, what the template
adds once (its beginning, a default system prompt, the marker of the answer), is the overhead.

For a list that is a whole prompt, counts and overhead add up to the engine's own count exactly:
the overhead is measured on that very list. Counts put together from several calls are exact for
templates that render each message on its own, between special tokens (ChatML, Llama 3, Gemma and
their like). They can be off by a few tokens a message for templates that treat a message by its
place (a system prompt folded into the first question; reasoning cut out of earlier answers), and
where text is tokenised across the border of two messages.
"""

from collections.abc import Callable, Sequence

from parley_inference.engine.base import Message, RequestRefused, Role, TokenCounts

# length(messages, with the answer's marker) -> tokens; raises RequestRefused.
Length = Callable[[Sequence[Message], bool], int]

_QUESTION = Message(Role.USER, "x")
_REPLY = Message(Role.ASSISTANT, "y")


class MessageCounter:
    """Counts with one template; the constants of the template are measured once."""

    def __init__(self, length: Length) -> None:
        """``length``: tokens of a rendered prompt, with or without the answer's marker.

        Raises RequestRefused if the template takes not even a plain question and answer.
        """
        self._length = length
        self._turn = length([_QUESTION, _REPLY], False)
        self._two_turns = length([_QUESTION, _REPLY, _QUESTION], False)
        self._question = self._two_turns - self._turn
        self._first = length([_QUESTION], False)
        self._marker = length([_QUESTION], True) - self._first

    def count(self, messages: Sequence[Message]) -> TokenCounts:
        """Tokens of each message and of what the template adds once."""
        tokens = [self._count_one(message) for message in messages]
        return TokenCounts(tokens, self._overhead(messages, sum(tokens)))

    def _count_one(self, message: Message) -> int:
        if message.role is Role.USER:
            chat = [_QUESTION, _REPLY, message]
            return max(self._length(chat, False) - self._turn, 0)
        if message.role is Role.ASSISTANT:
            # In the midst of a chat, as it will be: templates may render a last answer otherwise.
            chat = [_QUESTION, message, _QUESTION]
            return max(self._length(chat, False) - self._first - self._question, 0)
        return max(self._length([message, _QUESTION], False) - self._question, 0)

    def _overhead(self, messages: Sequence[Message], counted: int) -> int:
        try:
            whole = self._length(messages, True)
        except RequestRefused:
            # Not a whole prompt for this template.
            return self._usual_overhead(messages)
        return max(whole - counted, 0)

    def _usual_overhead(self, messages: Sequence[Message]) -> int:
        """What is added to a prompt of such a beginning that the template does take."""
        if messages and messages[0].role is Role.SYSTEM:
            return self._marker
        return max(self._first - self._question, 0) + self._marker
