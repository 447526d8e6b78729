"""Acceptance: a turn is taken by a chat, and its run begun.

It is one write: a new chat is inserted with its turn in `pending`, an existing one
takes it by compare-and-set. Before that nothing is stored; after it the answer will be
made, by this replica or another one. The order (docs/runs.md): read the chat, then the
run, then compare-and-set on the `nextSeq` that was read. A turn or run of one's own id
that is there already is attached to, before being busy is judged.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace

from opentelemetry import trace

from parley_kit.errors import ServiceError
from parley_session.answers.asked import Asked
from parley_session.answers.deciding import Answers
from parley_session.clock import Clock
from parley_session.context.builder import ContextBuilder
from parley_session.context.prompt import Prompt
from parley_session.domain import errors
from parley_session.domain.model import (
    Chat,
    HistoryStrategy,
    IdempotencyRecord,
    Options,
    Principal,
    RunRequest,
    Turn,
    WhenBusy,
)
from parley_session.domain.titles import title_from
from parley_session.fleet.base import Fleet
from parley_session.queue.base import Ticket
from parley_session.queue.gate import Gate
from parley_session.runs import observing
from parley_session.runs.advancing import Advancer
from parley_session.runs.asking import Accepted, Completion, NewChat, find_chat, new_chat
from parley_session.runs.finishing import Finisher
from parley_session.runs.holding import held_from_the_start
from parley_session.runs.keys import Keys
from parley_session.runs.registry import LiveRuns
from parley_session.runs.requests import sampling_of
from parley_session.runs.turns import insert_turn, question_of, run_of, store_turn
from parley_session.runs.uninterrupted import uninterrupted
from parley_session.runs.work import Known
from parley_session.store.base import MAX_PENDING, Store

_tracer = trace.get_tracer(__name__)

# Turns that may be pending in a chat whose callers do not wait.
ONE_AT_A_TIME = 1
# Seconds for an engine to say whether it can serve a request's options.
CHECK_SECONDS = 12.0
# Times that acceptance reads again because somebody else was faster.
MAX_RACES = 16


class Acceptance:
    """Has chats take turns."""

    def __init__(
        self,
        *,
        store: Store,
        fleet: Fleet,
        context: ContextBuilder,
        answers: Answers,
        live_runs: LiveRuns,
        finisher: Finisher,
        advancer: Advancer,
        gate: Gate,
        keys: Keys,
        clock: Clock,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._context = context
        self._answers = answers
        self._live_runs = live_runs
        self._finisher = finisher
        self._advancer = advancer
        self._gate = gate
        self._keys = keys
        self._clock = clock

    async def accept(
        self,
        principal: Principal,
        asked: Completion,
        key: IdempotencyRecord | None = None,
        *,
        known: bool = False,
    ) -> Accepted:
        """Find the turn, or have it taken; `key` is claimed before that.

        `known`: somebody else may have had these very ids accepted. Raises KeyTaken.
        """
        if asked.new_chat is not None and principal.user is not None:
            accepted = None
            if not known or not await self._is_there(principal, asked):
                try:
                    accepted = await self._start_chat(
                        principal, principal.user, asked, asked.new_chat, key
                    )
                except ServiceError:
                    # What was accepted before, by a try whose answer was lost, stands.
                    if not await self._is_there(principal, asked):
                        raise
            if accepted is not None:
                return accepted
        for _ in range(MAX_RACES):
            chat = await find_chat(self._store, self._clock, principal, asked.chat_id)
            accepted = await self._attach(chat, asked)
            if accepted is None and not await self._settle_stale(chat, asked):
                accepted = await self._take_turn(principal, chat, asked, key)
            if accepted is not None:
                return accepted
        raise errors.overloaded("too many messages are sent to this chat at once")

    async def _start_chat(
        self,
        principal: Principal,
        user: str,
        asked: Completion,
        new: NewChat,
        key: IdempotencyRecord | None,
    ) -> Accepted | None:
        """Insert the chat with its first turn. None: a chat with this id is there."""
        model = await self._fleet.find(new.model, principal.tenant)
        ticket = Ticket(asked.run_id, principal.tenant, user)
        async with self._gate.admit(model.id, ticket) as room:
            empty = new_chat(
                asked.chat_id, principal.tenant, user, new, model.id, self._clock.now()
            )
            turn = self._turn(asked, model.id, seq=0, new_chat=True)
            chat = replace(
                empty,
                title=empty.title or title_from(asked.message),
                next_seq=2,
                pending=(turn,),
            )
            prompt = await self._prompt(chat, turn)
            await self._claim(key)
            ahead = self._ask(chat, turn, prompt) if room else None
            if not await self._taken(ahead, self._store.insert_chat(chat)):
                return None
            return await self._begin(chat, turn, prompt, ahead)

    async def _take_turn(
        self, principal: Principal, chat: Chat, asked: Completion, key: IdempotencyRecord | None
    ) -> Accepted | None:
        """Have a chat take the turn. None: it has changed since it was read."""
        if chat.pending:
            return await self._take_waiting_turn(principal, chat, asked, key)
        ticket = Ticket(asked.run_id, chat.tenant, chat.user)
        async with self._gate.admit(chat.model, ticket) as room:
            turn = self._turn(asked, chat.model, seq=chat.next_seq)
            prompt = await self._prompt(chat, turn)
            await self._claim(key)
            ahead = self._ask(chat, turn, prompt) if room else None
            accepting = self._store.accept_turn(principal, chat, turn, ONE_AT_A_TIME)
            if not await self._taken(ahead, accepting):
                return None
            taken = replace(chat, pending=(turn,), revision=chat.revision + 1)
            return await self._begin(taken, turn, prompt, ahead)

    async def _take_waiting_turn(
        self, principal: Principal, chat: Chat, asked: Completion, key: IdempotencyRecord | None
    ) -> Accepted | None:
        """Have a busy chat take the turn, behind those that are there.

        Its prompt needs answers that are not made yet, so only what is known to be too
        long is refused: the question itself.
        """
        turn = self._turn(asked, chat.model, seq=chat.next_seq)
        model = await self._fleet.find(chat.model, chat.tenant)
        alone = replace(asked.options, history=HistoryStrategy.TRUNCATE, history_turns=0)
        await self._context.build(model, chat.system, question_of(chat, turn), alone)
        await self._claim(key)
        if not await self._store.accept_turn(principal, chat, turn, MAX_PENDING):
            return None
        run = await store_turn(self._store, chat, turn)
        if run is None:
            raise errors.not_found("chat")
        # The one before may have been settled since the chat was read, by somebody who
        # found nothing behind it.
        now = await self._store.get_chat(principal, chat.id)
        head = now is not None and bool(now.pending) and now.pending[0].run == turn.run
        live = await self._advancer.advance(now) if now is not None and head else None
        return Accepted(run, live, repeated=False)

    async def _prompt(self, chat: Chat, turn: Turn) -> Prompt:
        """Build the prompt before acceptance: what does not fit is refused, nothing stored.

        It is still right after acceptance: that holds only if the chat has not changed.
        """
        options = turn.request.options
        model = await self._fleet.find(turn.request.model, chat.tenant)
        if options.json_schema:
            await self._check_schema(model.id, options, chat.tenant)
        with _tracer.start_as_current_span("context"):
            return await self._context.build(
                model, chat.system, question_of(chat, turn), options, chat.summary
            )

    async def _check_schema(self, model: str, options: Options, tenant: str) -> None:
        """Have an engine refuse a schema that it follows nowhere. Raises `invalid_request`."""
        try:
            sampling = sampling_of(options)
            await self._fleet.check_sampling(model, sampling, CHECK_SECONDS, tenant)
        except ServiceError as error:
            if error.code != "invalid_request":
                raise
            reason = "; ".join(item.message for item in error.fields) or error.detail
            raise errors.invalid_field("options.responseFormat", reason) from error

    async def _claim(self, key: IdempotencyRecord | None) -> None:
        """Have the key stand for this request's ids. Raises KeyTaken: go on with others."""
        if key is not None:
            await self._keys.claim(key)

    def _turn(self, asked: Completion, model: str, seq: int, *, new_chat: bool = False) -> Turn:
        return Turn(
            run=asked.run_id,
            seq=seq,
            message=asked.message,
            request=RunRequest(
                model, asked.options, observing.current_traceparent(), new_chat=new_chat
            ),
            accepted_at=self._clock.now(),
        )

    def _ask(self, chat: Chat, turn: Turn, prompt: Prompt) -> Asked:
        """Begin to look the question up, before its turn is taken and while it is stored."""
        run = held_from_the_start(run_of(chat, turn), self._live_runs.holder)
        return Asked(self._answers, run, prompt)

    async def _taken(self, ahead: Asked | None, accepting: Awaitable[bool]) -> bool:
        """Whether the turn was taken; if not, or nobody knows, nothing is looked up for it."""
        taken = False
        try:
            taken = await accepting
        finally:
            if ahead is not None and not taken:
                await ahead.drop()
        return taken

    async def _begin(self, chat: Chat, turn: Turn, prompt: Prompt, ahead: Asked | None) -> Accepted:
        """Begin the run of a turn that was just taken; `chat` as that has left it.

        `ahead`: None where the run has to wait.
        """
        room = ahead is not None
        if ahead is not None:
            # What is inserted as held is made: also if the caller leaves just now.
            begun = await uninterrupted(self._begin_held(chat, prompt, ahead))
            if begun is not None:
                return begun
            # Somebody met the turn and was faster.
        stored = await store_turn(self._store, chat, turn)
        if stored is None:
            raise errors.not_found("chat")
        if stored.attempt > 0:
            return Accepted(stored, self._live_runs.find(stored.id), repeated=False)
        if room:
            return Accepted(stored, self._live_runs.launch(stored), repeated=False)
        await self._gate.put(stored)
        return Accepted(stored, None, repeated=False)

    async def _begin_held(self, chat: Chat, prompt: Prompt, ahead: Asked) -> Accepted | None:
        """Begin a run that nobody else knows of yet. None: somebody does."""
        run, live = ahead.run, None
        try:
            inserted = await insert_turn(self._store, prompt.messages[-1], run)
            # One that is here already was launched by who met the turn, and asks by itself.
            if inserted and self._live_runs.find(run.id) is None:
                known = Known(prompt.with_question_stored(), chat, ahead)
                live = self._live_runs.launch(run, known)
        finally:
            if live is None:
                await ahead.drop()
        return Accepted(run, live, repeated=False) if live is not None else None

    # what is there already ----------------------------------------------------

    async def _is_there(self, principal: Principal, asked: Completion) -> bool:
        return await self._store.get_chat(principal, asked.chat_id) is not None

    async def _attach(self, chat: Chat, asked: Completion) -> Accepted | None:
        """Find one's own turn, or its run: a repeated request is the same run."""
        owner = Principal(chat.tenant, chat.user)
        turn = next((turn for turn in chat.pending if turn.run == asked.run_id), None)
        if turn is not None:
            run = await store_turn(self._store, chat, turn)
        else:
            run = await self._store.get_run(owner, asked.run_id)
        if run is None or run.chat != chat.id:
            return None
        live = self._live_runs.find(run.id)
        is_head = bool(chat.pending) and chat.pending[0].run == run.id
        if live is None and is_head and run.attempt == 0 and not run.state.final:
            # Accepted, and never held: whoever accepted it has not come that far.
            if self._gate.is_open(run.request.model, run.tenant):
                live = self._live_runs.launch(run)
            else:
                await self._gate.put(run)
        return Accepted(run, live, repeated=True)

    async def _settle_stale(self, chat: Chat, asked: Completion) -> bool:
        """Do what remains of the turn at the chat's head, if that is nobody's work in progress.

        True: the chat is to be read again. Raises `run_in_progress`; for one who would
        wait `queue_full`.
        """
        if not chat.pending:
            return False
        turn = chat.pending[0]
        run = await self._store.get_run(Principal(chat.tenant, chat.user), turn.run)
        if run is None:
            # Accepted, but not stored further: its acceptor is slow, or gone.
            run = await store_turn(self._store, chat, turn)
        if run is not None and run.state.final:
            await self._finisher.finish(run)
            return True
        if asked.options.when_busy is not WhenBusy.QUEUE:
            raise errors.run_in_progress(turn.run)
        if len(chat.pending) >= MAX_PENDING:
            raise errors.queue_full(len(chat.pending))
        return False
