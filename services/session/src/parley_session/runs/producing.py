"""Producing the text of an answer: prompt, cache, engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

from parley.inference.v1 import inference_pb2 as pb

from parley_session import metrics
from parley_session.answers.asked import Asked
from parley_session.answers.base import Hit
from parley_session.answers.deciding import Answers
from parley_session.clock import Clock
from parley_session.context.builder import ContextBuilder
from parley_session.context.prompt import Prompt
from parley_session.domain.model import FinishReason, Principal, Run, Usage, message_id
from parley_session.fleet.base import Draw, Fleet
from parley_session.runs import observing
from parley_session.runs.errors import Deleted, LogLost
from parley_session.runs.gathering import Gathered, gathered
from parley_session.runs.requests import generate_request
from parley_session.runs.work import Work
from parley_session.store.base import Store
from parley_session.store.patience import persistently

_FINISH_REASONS = {
    pb.FINISH_REASON_STOP: FinishReason.STOP,
    pb.FINISH_REASON_LENGTH: FinishReason.LENGTH,
}


class Producer:
    """Brings the text of a held run to its end, from wherever it stands.

    `head_start`: seconds that a look-up has before the engine is asked beside it.
    """

    def __init__(
        self,
        *,
        store: Store,
        fleet: Fleet,
        context: ContextBuilder,
        answers: Answers,
        clock: Clock,
        head_start: float,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._context = context
        self._answers = answers
        self._clock = clock
        self._head_start = head_start

    async def produce(self, work: Work) -> None:
        """Produce the rest of the text; all of it is written when this returns.

        What there was of a started one has been taken over (`Writer.resume`).

        Raises Fenced, Deleted, LogLost, and ServiceError for an answer that cannot be
        made. The caller bounds the time; interrupted, it leaves what was written.
        """
        if work.run.started_at is not None:
            if work.writer.finish_reason is not None:
                # All of it is there: only the commit was missing.
                return
            prompt = await self._rebuild(work)
        else:
            prompt = work.prompt = work.prompt or await self._build_prompt(work.run)
            # Frozen, and its log known, before any text is seen; no sooner than that is
            # it waited for, so that cache and engine are asked meanwhile.
            work.writer.open(prompt.frozen())
            if work.asked is None:
                work.decision = await self._answers.ask(work.run, prompt)
            elif await self._draw_beside(work, prompt, work.asked):
                return
            elif work.decision is None:
                work.decision = await work.asked.decision()
            if work.decision.hit is not None:
                await self._serve(work, work.decision.hit)
                return
        await self._draw(work, prompt)

    async def _draw_beside(self, work: Work, prompt: Prompt, asked: Asked) -> bool:
        """Draw while a look-up still seeks; nothing is written before that is decided.

        Whether the answer is written. It is not where a hit is served or another's answer
        waited for: then the drawing is ended, and what there was of it thrown away.
        """
        if await asked.settled(self._head_start):
            return False
        if not self._fleet.has_own(work.run.request.model, work.run.tenant):
            return False
        outcome, spans = "left", observing.Drawing()
        try:
            async with self._drawing(work, prompt, beside=True) as events:
                await asked.settled()
                if not asked.decided:
                    outcome = "waited"
                    return False
                work.decision = await asked.decision()
                if work.decision.hit is not None:
                    outcome = "hit"
                elif work.live.drawn:
                    outcome = "used"
                    await self._write_all(work, events, spans)
                # Else no engine has taken it yet: others may be asked from here on.
        finally:
            metrics.DRAWN_BESIDE.labels(outcome).inc()
            if outcome in ("left", "waited"):
                work.live.drawn = False
        return outcome == "used"

    async def _rebuild(self, work: Work) -> Prompt:
        """Build again the prompt that was frozen before the first token."""
        run = work.run
        if run.prompt is None:
            raise LogLost
        rebuilt = await persistently(partial(self._context.rebuild, run, run.prompt))
        if rebuilt is None:
            raise Deleted
        work.prompt = rebuilt
        return rebuilt

    async def _build_prompt(self, run: Run) -> Prompt:
        principal = Principal(run.tenant, run.user)
        question_id = message_id(run.chat, run.seq)
        chat = await persistently(partial(self._store.get_chat, principal, run.chat))
        question = await persistently(partial(self._store.get_message, principal, question_id))
        if chat is None or chat.deleted_at is not None or question is None:
            raise Deleted
        model = await self._fleet.find(run.request.model, run.tenant)
        options = run.request.options
        return await persistently(
            partial(self._context.build, model, chat.system, question, options, chat.summary)
        )

    async def _serve(self, work: Work, hit: Hit) -> None:
        """Write a cached answer, whole: a taker finds it finished."""
        work.live.drawn = True
        await self._write(work, hit.answer, (), hit.finish_reason)
        work.usage = Usage(hit.prompt_tokens, hit.completion_tokens)

    async def _draw(self, work: Work, prompt: Prompt) -> None:
        spans = observing.Drawing()
        async with self._drawing(work, prompt) as events:
            await self._write_all(work, events, spans)

    def _drawing(
        self, work: Work, prompt: Prompt, *, beside: bool = False
    ) -> AbstractAsyncContextManager[Gathered]:
        """Draw while the body runs. `beside` a look-up, it is tentative until that is decided."""
        run = work.run
        # No two drawings of an attempt have one name: the first may not be gone yet.
        name = f"{run.id}:{run.attempt}"
        draw = Draw(
            request=generate_request(run, prompt, work.writer.token_ids),
            request_id=f"{name}:beside" if beside else name,
            tenant=run.tenant,
            deadline=work.deadline,
            affinity=run.chat,
            offset=work.live.length,
            placed=partial(setattr, work.live, "drawn", True),
            tentative=lambda: beside and work.decision is None,
        )
        return gathered(self._fleet.draw(draw))

    async def _write_all(self, work: Work, events: Gathered, spans: observing.Drawing) -> None:
        try:
            while some := await events.take():
                await self._write_some(work, some, spans)
        finally:
            spans.ended(len(work.writer.token_ids))

    async def _write_some(
        self, work: Work, some: Sequence[pb.GenerateResponse], spans: observing.Drawing
    ) -> None:
        """Write the text of some events as one piece."""
        texts: list[str] = []
        token_ids: list[int] = []
        reason: FinishReason | None = None
        for event in some:
            kind = event.WhichOneof("event")
            if kind == "chunk":
                texts.append(event.chunk.text)
                token_ids.extend(event.chunk.token_ids)
            elif kind == "started":
                spans.started(event.started)
                work.usage = _usage(event.started, 0)
            elif kind == "finished":
                work.usage = _usage(event.finished, event.finished.completion_tokens)
                reason = _FINISH_REASONS.get(event.finished.finish_reason, FinishReason.STOP)
        if token_ids or texts or reason is not None:
            await self._write(work, "".join(texts), token_ids, reason)

    async def _write(
        self,
        work: Work,
        text: str,
        token_ids: Sequence[int],
        finish_reason: FinishReason | None = None,
    ) -> None:
        await work.writer.write(text, token_ids, finish_reason)
        if work.first_token is None and text:
            elapsed = self._clock.now() - work.run.created_at
            work.first_token = max(0.0, elapsed.total_seconds())


def _usage(report: pb.GenerationStarted | pb.GenerationFinished, completion_tokens: int) -> Usage:
    return Usage(report.prompt_tokens, completion_tokens, report.cached_prompt_tokens)
