"""Folding a chat's old turns into a stored summary that is extended, not made anew.

Done by the engine once an answer is settled and its readers are gone, for chats that ask
for `history: summarize`, when the history takes much of the model's window or something
of it had to be left out. The older half of what is not summarised yet is folded; the
newest turns stay as they are. A summary that cannot be made is merely not there: the next
prompt then drops its oldest turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from parley.inference.v1 import inference_pb2 as pb

from parley_kit.errors import ServiceError
from parley_session import metrics
from parley_session.clock import Clock
from parley_session.context.prompt import Prompt
from parley_session.domain.model import (
    Chat,
    HistoryStrategy,
    Message,
    Principal,
    Role,
    Run,
    RunState,
    Summary,
)
from parley_session.fleet.base import Draw, Fleet, Model
from parley_session.store.base import Store, StoreUnavailable

_log = logging.getLogger(__name__)

# Of the model's window: a history that takes more is folded before it does not fit.
SHARE = 0.6
# Turns that are never folded.
KEPT_TURNS = 2
# Turns that one summary folds; more are folded after the next turn.
MAX_FOLDED_TURNS = 64
# Tokens of a summary, and its part of the window.
MAX_TOKENS = 512
PART = 8
MAX_BYTES = 8 * 1024
# Seconds for making one.
SECONDS = 60.0
# Characters that a token stands for at the least, as a first guess; halved when it was wrong.
CHARACTERS_PER_TOKEN = 2
MAX_TRIES = 3

_TASK = (
    "You keep the summary of a conversation between a user and an assistant. You are given"
    " the summary so far, if there is one, and what was said since. Write the new summary:"
    " facts, names, numbers, decisions and open questions, in the language of the"
    " conversation, in a few short sentences. Write nothing else."
)
_SPEAKERS = {Role.USER: "User", Role.ASSISTANT: "Assistant", Role.SYSTEM: "System"}


class Summarizer:
    """Extends summaries."""

    def __init__(self, store: Store, fleet: Fleet, clock: Clock) -> None:
        self._store = store
        self._fleet = fleet
        self._clock = clock

    async def extend(self, run: Run, chat: Chat, prompt: Prompt) -> None:
        """Extend the summary of a chat whose turn `run` was just settled, if it is due.

        Raises nothing: what fails is counted.
        """
        if (
            run.request.options.history is not HistoryStrategy.SUMMARIZE
            or run.state is not RunState.COMPLETED
        ):
            return
        try:
            async with asyncio.timeout(SECONDS):
                outcome = await self._extend(run, chat, prompt)
        except (ServiceError, StoreUnavailable, TimeoutError) as error:
            outcome = "failed"
            _log.info(
                "a summary could not be made",
                extra={"run": run.id, "reason": getattr(error, "code", type(error).__name__)},
            )
        if outcome:
            metrics.SUMMARIES.labels(outcome).inc()

    async def _extend(self, run: Run, chat: Chat, prompt: Prompt) -> str:
        """Do so; the outcome, empty: it is not due."""
        model = await self._fleet.find(run.request.model, run.tenant)
        since = chat.summary.until_seq if chat.summary else 0
        until = _fold_until(since, run.seq + 2)
        if until <= since or not _is_due(run, prompt, model, since):
            return ""
        owner = Principal(chat.tenant, chat.user)
        messages = await self._store.get_messages(owner, chat.id, since, until - 1)
        text, tokens = await self._make(run, chat, model, messages)
        if not text:
            return "empty"
        made = Summary(text, until, {model.tokenizer_id: tokens})
        return "ok" if await self._store.set_summary(chat.id, since, made) else "superseded"

    async def _make(
        self, run: Run, chat: Chat, model: Model, messages: Sequence[Message]
    ) -> tuple[str, int]:
        """Have the engine write it; the text and its tokens."""
        tokens = min(MAX_TOKENS, model.context_length // PART)
        before = chat.summary.text if chat.summary else ""
        room = max(1, (model.context_length - 2 * tokens) * CHARACTERS_PER_TOKEN)
        for tries_left in reversed(range(MAX_TRIES)):
            request = pb.GenerateRequest(
                model=run.request.model,
                messages=_task(before, messages, room),
                sampling=pb.SamplingOptions(max_tokens=tokens, temperature=0.0, top_p=1.0),
                template_time=int(self._clock.now().timestamp()),
                cache_salt=run.tenant,
            )
            try:
                return await self._draw(run, chat, request)
            except ServiceError as error:
                if error.code != "context_too_long" or not tries_left:
                    raise
                room //= 2
        raise AssertionError("unreachable")

    async def _draw(self, run: Run, chat: Chat, request: pb.GenerateRequest) -> tuple[str, int]:
        draw = Draw(
            request=request,
            request_id=f"{run.id}:summary",
            tenant=run.tenant,
            deadline=asyncio.get_running_loop().time() + SECONDS,
            affinity=chat.id,
        )
        parts: list[str] = []
        tokens = 0
        events = self._fleet.draw(draw)
        try:
            async for event in events:
                kind = event.WhichOneof("event")
                if kind == "chunk":
                    parts.append(event.chunk.text)
                elif kind == "finished":
                    tokens = event.finished.completion_tokens
        finally:
            await events.aclose()
        return _cut("".join(parts).strip(), MAX_BYTES), tokens


def _fold_until(since: int, end: int) -> int:
    """Return up to which message is folded: the older half of the turns, not the newest."""
    turns = (end - since) // 2
    folded = min(turns - KEPT_TURNS, MAX_FOLDED_TURNS, (turns + 1) // 2)
    return since + 2 * max(0, folded)


def _is_due(run: Run, prompt: Prompt, model: Model, since: int) -> bool:
    """Whether the next prompt will not fit, or something of this one did not."""
    if prompt.messages[0].seq > since and run.request.options.history_turns is None:
        return True
    taken = run.usage.prompt_tokens + run.usage.completion_tokens
    return taken + run.request.options.max_tokens > SHARE * model.context_length


def _task(before: str, messages: Sequence[Message], room: int) -> list[pb.ChatMessage]:
    """Ask for the summary of `messages`, each cut to its share of `room` characters."""
    share = max(1, (room - len(before)) // max(1, len(messages)))
    said = "\n\n".join(f"{_SPEAKERS[m.role]}: {m.content[:share]}" for m in messages)
    asked = f"Summary so far:\n{before}\n\nSaid since:\n{said}" if before else f"Said:\n{said}"
    return [
        pb.ChatMessage(role=pb.ROLE_SYSTEM, content=_TASK),
        pb.ChatMessage(role=pb.ROLE_USER, content=asked),
    ]


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode(errors="ignore")
