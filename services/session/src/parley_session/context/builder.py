"""Builds the prompt of a turn from its chat.

`full` sends every message, `truncate` drops the oldest whole turns until the rest
fits, `summarize` does the same behind a stored summary of the older ones;
`historyTurns` bounds each. The system prompt and the question are always
sent; where these alone do not fit, the turn is refused. What fits is judged by the
engine's own token counts: each message is counted once, with the chat template, and
the count is stored with it. A prompt so short that it fits whatever the count is not
counted: it begins one call sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from parley_kit.errors import ServiceError
from parley_session.clock import Clock
from parley_session.context.prompt import Counted, Prompt, chat_messages, with_summary
from parley_session.domain import errors
from parley_session.domain.model import (
    ContextInfo,
    FrozenPrompt,
    HistoryStrategy,
    Message,
    Options,
    Principal,
    Run,
    Summary,
)
from parley_session.fleet.base import Fleet, Model
from parley_session.store.base import Store

# Turns that are read at once; most chats fit the first page.
PAGE_TURNS = 32
# What goes into one CountTokens call: bytes of content, and messages.
MAX_COUNTED_BYTES = 1024 * 1024
MAX_COUNTED_MESSAGES = 1000
# What an engine takes as one prompt at most, whatever its window.
MAX_PROMPT_MESSAGES = 2000
MAX_PROMPT_BYTES = 1_900_000


# The most tokens that a byte of text may come to: none covers less than a byte of what
# normalisation makes of the text, and no normal form has more than 11 bytes for one.
MAX_TOKENS_A_BYTE = 11
# What a chat template puts around a message, generously.
MAX_TOKENS_AROUND = 64
# Models whose templates are remembered.
MAX_KNOWN_TEMPLATES = 256


class ContextBuilder:
    """Builds prompts. `count_timeout`: seconds for one CountTokens call."""

    def __init__(self, store: Store, fleet: Fleet, clock: Clock, count_timeout: float) -> None:
        self._store = store
        self._fleet = fleet
        self._clock = clock
        self._count_timeout = count_timeout
        # What a model's template adds once a prompt, with and without a system prompt.
        self._overheads: dict[tuple[Model, bool], int] = {}

    async def build(
        self,
        model: Model,
        system: str,
        question: Message,
        options: Options,
        summary: Summary | None = None,
    ) -> Prompt:
        """Build the prompt of `question`, whose earlier turns are all in place.

        `summary` is the chat's, used under `history: summarize` unless it does not fit.
        Raises `context_too_long`, and the fleet's `engine_unavailable`.
        """
        if options.history is HistoryStrategy.SUMMARIZE and summary is not None:
            try:
                return await self._build(model, system, question, options, summary)
            except ServiceError as error:
                if error.code != "context_too_long":
                    raise
        return await self._build(model, system, question, options, None)

    async def _build(
        self,
        model: Model,
        system: str,
        question: Message,
        options: Options,
        summary: Summary | None,
    ) -> Prompt:
        told = with_summary(system, summary.text if summary else "")
        budget = _Budget(model, options)
        # Counted anew in any case: that tells what the template adds to the prompt.
        question = replace(question, tokens={})
        counted: list[Counted] = []
        principal = Principal(question.tenant, question.user)
        # A page of history is read first, so that all of it is counted in one call.
        turns_left = question.seq // 2
        if options.history_turns is not None:
            turns_left = min(turns_left, options.history_turns)
        oldest = question.seq - 2 * turns_left
        if summary is not None:
            oldest = max(oldest, min(summary.until_seq, question.seq))
        page = await self._page(principal, question.chat, oldest, question.seq)
        asked = (*page, question)
        whole = asked[0].seq <= oldest
        tokens = self._at_most(model, told, asked) if whole else None
        if tokens is None or not budget.has_room(tokens, asked):
            tokens = await self._count(model, told, asked, counted)
        budget.take((question,), tokens, required=True)

        kept: list[Message] = []
        first = question.seq
        while page:
            for turn in reversed(_turns(page)):
                if not budget.take(turn, tokens, required=options.history is HistoryStrategy.FULL):
                    page = ()
                    break
                kept[:0] = turn
                first = turn[0].seq
            if not page or first <= oldest:
                break
            page = await self._page(principal, question.chat, oldest, first)
            tokens = await self._count(model, told, page, counted)
        question = replace(
            question,
            tokens={c.tokenizer_id: c.tokens for c in counted if c.message_id == question.id},
        )
        return Prompt(
            system=system,
            messages=(*kept, question),
            info=_info(options, len(kept) + 1, question.seq - len(kept), summary is not None),
            template_time=int(self._clock.now().timestamp()),
            model_revision=model.revision,
            counted=tuple(counted),
            summary=summary.text if summary else "",
        )

    async def rebuild(self, run: Run, frozen: FrozenPrompt) -> Prompt | None:
        """Build the very prompt that was frozen. None: messages of it are gone."""
        principal = Principal(run.tenant, run.user)
        messages: list[Message] = []
        for first in range(frozen.first_seq, frozen.last_seq + 1, 2 * PAGE_TURNS):
            last = min(frozen.last_seq, first + 2 * PAGE_TURNS - 1)
            messages += await self._store.get_messages(principal, run.chat, first, last)
        if not messages or messages[-1].seq != frozen.last_seq:
            return None
        return Prompt(
            system=frozen.system,
            messages=tuple(messages),
            info=_info(
                run.request.options,
                len(messages),
                frozen.last_seq + 1 - len(messages),
                bool(frozen.summary),
            ),
            template_time=frozen.template_time,
            model_revision=frozen.model_revision,
            summary=frozen.summary,
        )

    async def _page(
        self, principal: Principal, chat_id: str, oldest: int, before: int
    ) -> Sequence[Message]:
        """Read the latest turns with `oldest <= seq < before`, at most a page."""
        first = max(oldest, before - 2 * PAGE_TURNS)
        if first >= before:
            return ()
        return await self._store.get_messages(principal, chat_id, first, before - 1)

    async def _count(
        self, model: Model, system: str, messages: Sequence[Message], counted: list[Counted]
    ) -> _Tokens:
        """Look up the stored counts, and have the engine count the rest."""
        tokenizer = model.tokenizer_id
        of = {m.id: m.tokens[tokenizer] for m in messages if tokenizer in m.tokens}
        fixed = 0
        for batch in _batches([m for m in messages if m.id not in of]):
            asked = chat_messages(system, tuple(batch))
            tenant = batch[0].tenant
            counts = await self._fleet.count_tokens(model.id, asked, self._count_timeout, tenant)
            own = counts.tokens[-len(batch) :]
            fixed = counts.overhead + sum(counts.tokens[: -len(batch)])
            if len(self._overheads) >= MAX_KNOWN_TEMPLATES:
                self._overheads.clear()
            self._overheads[model, bool(system)] = counts.overhead
            for message, number in zip(batch, own, strict=True):
                of[message.id] = number
                counted.append(Counted(message.id, counts.tokenizer_id, number))
        return _Tokens(of, fixed)

    def _at_most(self, model: Model, system: str, messages: Sequence[Message]) -> _Tokens | None:
        """Bound what messages cost from above; None: the template is not known yet."""
        overhead = self._overheads.get((model, bool(system)))
        if overhead is None:
            return None
        tokenizer = model.tokenizer_id
        of = {m.id: m.tokens.get(tokenizer, _most_tokens(m.content)) for m in messages}
        return _Tokens(of, overhead + (_most_tokens(system) if system else 0))


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Counts of messages by id, and what a prompt costs without any."""

    of: dict[str, int]
    fixed: int


class _Budget:
    """What a prompt may have: the model's window less the answer's share."""

    def __init__(self, model: Model, options: Options) -> None:
        self._window = model.context_length
        self._max_tokens = options.max_tokens
        self._tokens = 0
        self._messages = 0
        self._bytes = 0

    def has_room(self, tokens: _Tokens, messages: Sequence[Message]) -> bool:
        """Whether all of a prompt fits."""
        return (
            tokens.fixed + sum(tokens.of.values()) + self._max_tokens <= self._window
            and len(messages) <= MAX_PROMPT_MESSAGES
            and sum(len(message.content.encode()) for message in messages) <= MAX_PROMPT_BYTES
        )

    def take(self, messages: Sequence[Message], tokens: _Tokens, *, required: bool) -> bool:
        """Use what messages cost, if it is there. Raises `context_too_long` where it must be.

        The first to be taken pay for the system prompt and the template as well.
        """
        fixed = 0 if self._messages else tokens.fixed
        after = self._tokens + fixed + sum(tokens.of[message.id] for message in messages)
        size = self._bytes + sum(len(message.content.encode()) for message in messages)
        count = self._messages + len(messages)
        fits = (
            after + self._max_tokens <= self._window
            and count <= MAX_PROMPT_MESSAGES
            and size <= MAX_PROMPT_BYTES
        )
        if fits:
            self._tokens, self._messages, self._bytes = after, count, size
        elif required:
            raise errors.context_too_long(after, self._window, self._max_tokens)
        return fits


def _most_tokens(text: str) -> int:
    return MAX_TOKENS_A_BYTE * len(text.encode()) + MAX_TOKENS_AROUND


def _turns(page: Sequence[Message]) -> list[list[Message]]:
    """Group messages by turn: a question and its answer, oldest first."""
    turns: dict[int, list[Message]] = {}
    for message in page:
        turns.setdefault(message.seq // 2, []).append(message)
    return list(turns.values())


def _batches(messages: Sequence[Message]) -> list[list[Message]]:
    """Cut what is to be counted into calls of bounded size, in order."""
    batches: list[list[Message]] = []
    room = 0
    for message in messages:
        size = len(message.content.encode())
        if not batches or size > room or len(batches[-1]) >= MAX_COUNTED_MESSAGES - 1:
            batches.append([])
            room = MAX_COUNTED_BYTES
        batches[-1].append(message)
        room -= size
    return batches


def _info(options: Options, included: int, dropped: int, summary_used: bool) -> ContextInfo:
    return ContextInfo(
        options.history,
        messages_included=included,
        messages_dropped=dropped,
        summary_used=summary_used,
    )
