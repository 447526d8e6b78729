"""One answer, from its request to its last chunk: what is the same for all engines.

Bounds and the door come first, then the prompt, then a task that moves the engine's steps into
the outbox while the call sends what comes out of it. Whatever ends the call (its end, the
caller's leaving, its deadline, a stop string, the engine's death) ends that task, and closing the
engine's stream aborts the request there.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from parley.inference.v1 import inference_pb2 as pb

from parley_inference import errors, metrics, spans
from parley_inference.answer.assembler import Assembler
from parley_inference.answer.outbox import Outbox
from parley_inference.bounds import Bounds, Generation, check_generate
from parley_inference.door import Door, Ticket
from parley_inference.engine.base import (
    Continuation,
    Engine,
    EngineBusy,
    EngineDead,
    EngineError,
    EngineRequest,
    EngineUsage,
    Finish,
    GenerationFailed,
    Prompt,
    PromptTooLong,
    RequestRefused,
    Sampling,
)
from parley_inference.spans import Timeline
from parley_kit.errors import FieldError, ServiceError

Send = Callable[[pb.GenerateResponse], Awaitable[None]]

_CONTINUATIONS = {
    Continuation.EXACT: pb.CONTINUATION_EXACT,
    Continuation.SAMPLED: pb.CONTINUATION_SAMPLED,
    Continuation.NONE: pb.CONTINUATION_NONE,
}
_FINISHES = {
    Finish.STOP: pb.FINISH_REASON_STOP,
    Finish.LENGTH: pb.FINISH_REASON_LENGTH,
}


@dataclass(slots=True)
class _Answer:
    """What is known of an answer while it is made."""

    times: Timeline
    assembler: Assembler
    existing: int
    prompt_tokens: int
    model_revision: str
    cached_prompt_tokens: int = 0
    finish: Finish | None = None
    # Tokens of the answer as the engine counted them, where it does so otherwise than by ids.
    counted_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the answer, those that existed before included."""
        return self.assembler.tokens if self.counted_tokens is None else self.counted_tokens

    def take(self, usage: EngineUsage) -> None:
        """Believe the engine's own count."""
        self.prompt_tokens = max(usage.prompt, 0)
        self.cached_prompt_tokens = min(max(usage.cached, 0), self.prompt_tokens)
        self.counted_tokens = self.existing + max(usage.completion, 0)


class Generator:
    """Serves ``Generate`` calls with one engine behind one door."""

    def __init__(
        self, engine: Engine, door: Door, *, bounds: Bounds, coalesce_seconds: float
    ) -> None:
        self._engine = engine
        self._door = door
        self._bounds = bounds
        self._coalesce_seconds = coalesce_seconds

    async def serve(self, request: pb.GenerateRequest, send: Send, seconds: float) -> None:
        """Answer one request within ``seconds``, all messages through ``send``.

        Raises ServiceError as the contract says; CancelledError passes.
        """
        times = Timeline(time.monotonic())
        asked = check_generate(request, self._bounds)
        with self._door.admit(request.request_id) as ticket:
            await self._check_served(request, asked)
            info = self._engine.info
            spans.describe_request(
                engine=info.engine,
                model=request.model,
                request_id=request.request_id,
                max_tokens=asked.sampling.max_tokens,
                temperature=asked.sampling.temperature,
            )
            prompt = await self._prepare(request, asked, seconds)
            ticket.prompt(prompt.length)
            drawn = self._engine.drawn
            answer = _Answer(
                times,
                Assembler(asked.stops, drawn=drawn),
                existing=drawn(asked.generated),
                prompt_tokens=prompt.length,
                model_revision=info.revision_of(request.model),
            )
            answer.finish = self._replay(asked, prompt, answer.assembler)
            if answer.finish is not None:
                # The answer was complete; only its end had not been told.
                await send(self._started(answer, asked.sampling))
                await send(_finished(answer, answer.finish))
                return
            engine_request = EngineRequest(
                request_id=request.request_id,
                prompt=prompt,
                sampling=asked.sampling,
                adapter="" if request.model == info.model_id else request.model,
                generated=asked.generated,
                cache_salt=request.cache_salt,
                priority=request.priority,
                trace_headers=spans.trace_headers(),
            )
            until = times.arrived + seconds
            await ticket.turn(
                request.cache_salt,
                answer_tokens=asked.sampling.max_tokens,
                priority=request.priority,
                seconds=until - time.monotonic(),
            )
            await self._stream(engine_request, answer, ticket, send, until - time.monotonic())

    async def _check_served(self, request: pb.GenerateRequest, asked: Generation) -> None:
        info = self._engine.info
        if not info.serves(request.model):
            raise errors.model_not_found(request.model)
        if request.own_fleet_only and info.external:
            raise errors.external_engine()
        revision = info.revision_of(request.model)
        if request.model_revision and request.model_revision != revision:
            raise errors.model_revision_mismatch(revision)
        try:
            await self._engine.check(asked.sampling)
        except RequestRefused as refusal:
            raise errors.invalid(FieldError(refusal.field, str(refusal))) from refusal
        except EngineBusy as busy:
            raise errors.overloaded(str(busy), busy.retry_after) from busy
        if not asked.generated:
            return
        if self._engine.continuation(asked.sampling) is Continuation.NONE:
            raise errors.continuation_unsupported()
        if max(asked.generated) >= info.vocab_size:
            raise errors.invalid(FieldError("generated_token_ids", "not tokens of this model"))
        if self._engine.drawn(asked.generated) > asked.sampling.max_tokens:
            raise errors.invalid(FieldError("generated_token_ids", "more than `max_tokens`"))

    async def _prepare(
        self, request: pb.GenerateRequest, asked: Generation, seconds: float
    ) -> Prompt:
        try:
            async with asyncio.timeout(seconds):
                prompt = await self._engine.prepare(asked.messages, request.template_time)
        except TimeoutError as error:
            raise errors.timed_out() from error
        except RequestRefused as refusal:
            raise errors.invalid(FieldError(refusal.field, str(refusal))) from refusal
        length = self._engine.info.context_length
        # An estimate refuses nobody: what counts exactly will.
        if prompt.length + asked.sampling.max_tokens > length and not prompt.estimated:
            raise errors.context_too_long(prompt.length, asked.sampling.max_tokens, length)
        return prompt

    def _replay(self, asked: Generation, prompt: Prompt, assembler: Assembler) -> Finish | None:
        """Read the tokens that exist already; the finish if the answer was complete with them."""
        if not asked.generated:
            return None
        try:
            texts = self._engine.decode(prompt, asked.generated)
        except RequestRefused as refusal:
            raise errors.invalid(FieldError(refusal.field, str(refusal))) from refusal
        matched = assembler.replay(asked.generated, texts)
        if matched or asked.generated[-1] in self._engine.info.end_token_ids:
            return Finish.STOP
        if assembler.tokens >= asked.sampling.max_tokens:
            return Finish.LENGTH
        return None

    async def _stream(
        self,
        request: EngineRequest,
        answer: _Answer,
        ticket: Ticket,
        send: Send,
        seconds: float,
    ) -> None:
        outbox = Outbox(answer.assembler, self._coalesce_seconds)
        pump = asyncio.create_task(self._pump(request, answer, outbox))
        deadline = asyncio.get_running_loop().call_later(
            max(seconds, 0.0), lambda: outbox.fail(errors.timed_out(), at_once=True)
        )
        reason = "cancelled"
        try:
            first = await outbox.first()
            ticket.started()
            answer.times.first_token = time.monotonic()
            answer.times.scheduled = first.scheduled_at
            answer.cached_prompt_tokens = min(first.cached_prompt_tokens, answer.prompt_tokens)
            await send(self._started(answer, request.sampling))
            while (chunk := await outbox.get()) is not None:
                await send(
                    pb.GenerateResponse(
                        chunk=pb.GenerationChunk(
                            offset=chunk.offset, text=chunk.text, token_ids=chunk.token_ids
                        )
                    )
                )
            finish = answer.finish or Finish.STOP
            await send(_finished(answer, finish))
            reason = finish.value
        except ServiceError as error:
            reason = error.code
            raise
        finally:
            deadline.cancel()
            outbox.close()
            pump.cancel()
            await asyncio.wait({pump})
            _account(answer, reason)

    async def _pump(self, request: EngineRequest, answer: _Answer, outbox: Outbox) -> None:
        """Move the engine's steps into the outbox until the answer has ended."""
        drawn = False
        try:
            async with aclosing(self._engine.generate(request)) as steps:
                async for step in steps:
                    drawn = True
                    self._door.tokens += len(step.token_ids)
                    if step.usage is not None:
                        answer.take(step.usage)
                    answer.finish = Finish.STOP if outbox.put(step) else step.finish
                    if answer.finish is not None:
                        break
            if answer.finish is None:
                raise GenerationFailed("the engine ended the answer without a reason")
            answer.times.ended = time.monotonic()
            outbox.end()
        except RequestRefused as refusal:
            outbox.fail(errors.invalid(FieldError(refusal.field, str(refusal))))
        except PromptTooLong:
            length = self._engine.info.context_length
            asked_for = request.sampling.max_tokens
            outbox.fail(errors.context_too_long(request.prompt.length, asked_for, length))
        except EngineBusy as busy:
            outbox.fail(errors.overloaded(str(busy), busy.retry_after))
        except (EngineDead, GenerationFailed) as error:
            outbox.fail(_broken_off(error, drawn=drawn))
        except Exception as error:  # noqa: BLE001 - told to the call, which logs it
            outbox.fail(error)

    def _started(self, answer: _Answer, sampling: Sampling) -> pb.GenerateResponse:
        times = answer.times
        return pb.GenerateResponse(
            started=pb.GenerationStarted(
                prompt_tokens=answer.prompt_tokens,
                cached_prompt_tokens=answer.cached_prompt_tokens,
                continuation=_CONTINUATIONS[self._engine.continuation(sampling)],
                model_revision=answer.model_revision,
                queue_seconds=max(times.scheduled - times.arrived, 0.0),
                first_token_seconds=max(times.first_token - times.arrived, 0.0),
            )
        )


def _finished(answer: _Answer, finish: Finish) -> pb.GenerateResponse:
    return pb.GenerateResponse(
        finished=pb.GenerationFinished(
            finish_reason=_FINISHES[finish],
            prompt_tokens=answer.prompt_tokens,
            cached_prompt_tokens=answer.cached_prompt_tokens,
            completion_tokens=answer.tokens,
        )
    )


def _broken_off(error: EngineError, *, drawn: bool) -> ServiceError:
    """Nothing drawn: another replica may begin; else one may continue."""
    return errors.engine_lost(str(error)) if drawn else errors.engine_unavailable(str(error))


def _account(answer: _Answer, reason: str) -> None:
    """Metrics and spans of a request that has ended, in whatever way."""
    times = answer.times
    times.ended = times.ended or time.monotonic()
    drawn = answer.tokens - answer.existing
    metrics.FINISHED.labels(reason).inc()
    metrics.COMPLETION_TOKENS.inc(drawn)
    if times.first_token:
        metrics.PROMPT_TOKENS.inc(answer.prompt_tokens)
        metrics.CACHED_PROMPT_TOKENS.inc(answer.cached_prompt_tokens)
        metrics.TTFT_SECONDS.observe(times.first_token - times.arrived)
    if times.scheduled:
        metrics.QUEUE_SECONDS.observe(max(times.scheduled - times.arrived, 0.0))
    if times.first_token and drawn > 1:
        metrics.ITL_SECONDS.observe((times.ended - times.first_token) / (drawn - 1))
    if answer.finish is not None:
        metrics.ANSWER_TOKENS.observe(answer.tokens)
    spans.describe_usage(
        prompt_tokens=answer.prompt_tokens,
        cached_prompt_tokens=answer.cached_prompt_tokens,
        completion_tokens=answer.tokens,
        reason=reason,
    )
    spans.record_phases(times)
