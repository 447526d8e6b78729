"""A prompt: the messages that the model sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

from parley.inference.v1 import inference_pb2 as pb

from parley_session.domain.model import ContextInfo, FrozenPrompt, Message, Role

_ROLES = {
    Role.SYSTEM: pb.ROLE_SYSTEM,
    Role.USER: pb.ROLE_USER,
    Role.ASSISTANT: pb.ROLE_ASSISTANT,
}


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens of one stored message, counted now and not stored yet."""

    message_id: str
    tokenizer_id: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked: the system prompt and messages, the question last."""

    system: str
    # Oldest first; at least the question.
    messages: tuple[Message, ...]
    info: ContextInfo
    # Unix seconds that the chat template sees as now.
    template_time: int
    model_revision: str
    # Counts that are yet to be stored with their messages.
    counted: tuple[Counted, ...] = ()
    # Of the turns before the first message; empty: none.
    summary: str = ""

    def with_question_stored(self) -> Prompt:
        """Leave out the question's count, which was stored with it."""
        question = self.messages[-1].id
        return replace(self, counted=tuple(c for c in self.counted if c.message_id != question))

    def frozen(self) -> FrozenPrompt:
        """Return what a later attempt needs to build the same prompt."""
        return FrozenPrompt(
            first_seq=self.messages[0].seq,
            last_seq=self.messages[-1].seq,
            system=self.system,
            summary=self.summary,
            template_time=self.template_time,
            model_revision=self.model_revision,
        )

    def chat_messages(self) -> list[pb.ChatMessage]:
        """Return it as an engine takes it."""
        return chat_messages(with_summary(self.system, self.summary), self.messages)


def with_summary(system: str, summary: str) -> str:
    """Put a summary of what was said before behind the system prompt."""
    if not summary:
        return system
    told = f"Summary of the conversation so far:\n{summary}"
    return f"{system}\n\n{told}" if system else told


def chat_messages(system: str, messages: tuple[Message, ...]) -> list[pb.ChatMessage]:
    """Put a system prompt (empty: none) and messages as an engine takes them."""
    head = [pb.ChatMessage(role=pb.ROLE_SYSTEM, content=system)] if system else []
    return head + [pb.ChatMessage(role=_ROLES[m.role], content=m.content) for m in messages]
