"""The simulated engine: continuous batching over text that is made up.

A batch of at most ``concurrency`` requests draws one token each at every step, ``itl`` seconds
apart; a request's first token comes ``ttft`` seconds after it joined the batch. The others wait,
by priority, then by arrival. At zero delay a step follows the one before it as soon as the event
loop has run everything else once.
"""

import asyncio
import heapq
import itertools
import logging
import os
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from opentelemetry import trace

from parley_inference.engine.base import (
    Continuation,
    EngineDead,
    EngineRequest,
    Finish,
    GenerationFailed,
    Message,
    ModelInfo,
    Prompt,
    RequestRefused,
    Sampling,
    Step,
    TokenCounts,
)
from parley_inference.engine.sim import faults, text, tokenizer
from parley_inference.engine.sim.faults import Faults
from parley_inference.engine.sim.prefix_cache import BLOCK_TOKENS, PrefixCache

_log = logging.getLogger(__name__)

# Exit status of a process that a directive told to die.
DEATH_STATUS: Final = 70


@dataclass(frozen=True, slots=True)
class SimOptions:
    """How the simulator behaves. Times in seconds; ``answer_tokens`` 0: up to ``max_tokens``."""

    model_id: str = "sim"
    revision: str = "1"
    context_length: int = 8192
    ttft: float = 0.0
    itl: float = 0.0
    concurrency: int = 256
    answer_tokens: int = 64
    seed: int | None = None
    kv_blocks: int = 65536
    faults: bool = False


@dataclass(slots=True, eq=False)
class _Sequence:
    """One request in the batch or before it."""

    request: EngineRequest
    faults: Faults
    tokens: Iterator[int]
    decoder: tokenizer.Decoder
    length: int
    drawn: int
    due: float = 0.0
    scheduled_at: float = 0.0
    cached: int = 0
    ids: list[int] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    history: list[int] = field(default_factory=list)
    finish: Finish | None = None
    error: Exception | None = None
    waiter: asyncio.Future[None] | None = None
    # Of the request: the batch is drawn by a task that serves many.
    span: trace.Span = field(default_factory=trace.get_current_span)

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    @property
    def reserved(self) -> int:
        """Tokens that the request may come to hold in the KV cache."""
        return len(self.request.prompt.token_ids) + len(self.history)


class SimEngine:
    """Keeps the contract of ``engine.base.Engine`` without a model."""

    def __init__(self, options: SimOptions) -> None:
        self._options = options
        self._info = ModelInfo(
            model_id=options.model_id,
            engine="sim",
            revision=options.revision,
            context_length=options.context_length,
            tokenizer_id=tokenizer.tokenizer_id(),
            vocab_size=tokenizer.VOCAB_SIZE,
            end_token_ids=frozenset({tokenizer.END}),
            max_running=options.concurrency,
        )
        self._cache = PrefixCache(options.kv_blocks)
        self._waiting: list[tuple[int, int, _Sequence]] = []
        self._order = itertools.count()
        self._running: dict[_Sequence, None] = {}
        self._work = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._dead = False

    @property
    def info(self) -> ModelInfo:
        """What is served."""
        return self._info

    @property
    def alive(self) -> bool:
        """Whether requests can be served."""
        return not self._dead

    @property
    def trouble(self) -> str:
        """None ever."""
        return ""

    @property
    def progress(self) -> str:
        """Nothing to tell."""
        return ""

    @property
    def kv_free_ratio(self) -> float:
        """Share of the simulated KV cache that is free."""
        used = sum(sequence.reserved for sequence in self._running)
        return max(0.0, 1.0 - used / (self._options.kv_blocks * BLOCK_TOKENS))

    async def start(self) -> None:
        """Begin to draw."""
        self._loop_task = asyncio.create_task(self._run(), name="sim-engine")

    async def stop(self) -> None:
        """End; requests that are left fail."""
        self._die()
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.wait({self._loop_task})

    async def prepare(self, messages: Sequence[Message], template_time: int) -> Prompt:
        """Render the prompt; the simulator's template has no clock."""
        del template_time
        return Prompt(tokenizer.render(messages), messages)

    async def count(self, messages: Sequence[Message]) -> TokenCounts:
        """Count tokens; exact, the template is additive."""
        tokens = [len(tokenizer.encode(message.content)) + 2 for message in messages]
        return TokenCounts(tokens, overhead=2)

    async def check(self, sampling: Sampling) -> None:
        """Refuse grammars: the simulator's text follows none."""
        if sampling.json_schema:
            raise RequestRefused("sampling.json_schema", "the sim engine follows no JSON schema")

    def continuation(self, sampling: Sampling) -> Continuation:
        """Always exact: a token depends on seed, prompt and position alone."""
        del sampling
        return Continuation.EXACT

    def drawn(self, token_ids: Sequence[int]) -> int:
        """Each id is a token."""
        return len(token_ids)

    def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> list[str | None]:
        """The texts that the tokens complete. Raises RequestRefused for ids that are none."""
        del prompt
        if not all(map(tokenizer.is_token, token_ids)):
            raise RequestRefused("generated_token_ids", "not tokens of this model")
        decoder = tokenizer.Decoder()
        return list(map(decoder.push, token_ids))

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Step, None]:
        """Draw an answer; see the contract."""
        if self._dead:
            raise EngineDead("the simulated engine is dead")
        sequence = self._sequence(request)
        heapq.heappush(self._waiting, (request.priority, next(self._order), sequence))
        self._work.set()
        loop = asyncio.get_running_loop()
        try:
            while True:
                while not sequence.ids:
                    if sequence.error is not None:
                        raise sequence.error
                    sequence.waiter = loop.create_future()
                    await sequence.waiter
                step = Step(
                    sequence.ids,
                    sequence.texts,
                    sequence.finish,
                    sequence.cached,
                    sequence.scheduled_at,
                )
                sequence.ids, sequence.texts = [], []
                yield step
                if step.finish is not None:
                    return
        finally:
            self._remove(sequence)

    def _sequence(self, request: EngineRequest) -> _Sequence:
        options = self._options
        existing = len(request.generated)
        asked = (
            faults.parse(request.prompt.messages, continued=existing > 0)
            if options.faults
            else faults.NO_FAULTS
        )
        seed = request.sampling.seed if request.sampling.seed is not None else options.seed
        tokens = text.answer_tokens(text.seed_of(seed, request.prompt.token_ids))
        decoder = tokenizer.Decoder()
        for token_id in request.generated:
            decoder.push(token_id)
        return _Sequence(
            request=request,
            faults=asked,
            tokens=itertools.islice(tokens, existing, None),
            decoder=decoder,
            length=asked.tokens or options.answer_tokens or request.sampling.max_tokens + 1,
            drawn=existing,
        )

    def _remove(self, sequence: _Sequence) -> None:
        """Take a request out, wherever it is."""
        if sequence in self._running:
            del self._running[sequence]
            prompt = sequence.request.prompt.token_ids
            self._cache.insert(
                sequence.request.cache_salt,
                [*prompt, *sequence.request.generated, *sequence.history],
            )
            self._work.set()
            return
        kept = [entry for entry in self._waiting if entry[2] is not sequence]
        if len(kept) != len(self._waiting):
            heapq.heapify(kept)
            self._waiting = kept

    def _admit(self, now: float) -> None:
        while self._waiting and len(self._running) < self._options.concurrency:
            _, _, sequence = heapq.heappop(self._waiting)
            request = sequence.request
            sequence.cached = self._cache.lookup(request.cache_salt, request.prompt.token_ids)
            sequence.scheduled_at = now
            sequence.due = now + self._options.ttft
            self._running[sequence] = None

    async def _run(self) -> None:
        """Step by step, for as long as there is work."""
        tick = 0.0
        while not self._dead:
            now = time.monotonic()
            self._admit(now)
            self._work.clear()
            if now >= tick:
                # Never catch up: a step that came late delays the ones after it.
                tick = now + self._options.itl
            active = [s for s in self._running if s.finish is None and s.error is None]
            for sequence in active:
                if sequence.due <= now:
                    self._draw(sequence, tick)
            due = min((s.due for s in active), default=None)
            if due is None:
                await self._work.wait()
            elif due <= time.monotonic():
                await asyncio.sleep(0)
            else:
                await self._pause(due)

    async def _pause(self, until: float) -> None:
        """Wait for the next step, or for a request that may join the batch."""
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await self._work.wait()
        except TimeoutError:
            return

    def _draw(self, sequence: _Sequence, tick: float) -> None:
        """One token for one request, or the fault that it asked for."""
        asked = sequence.faults
        if asked.strike and sequence.drawn >= asked.after:
            self._strike(sequence)
            return
        request = sequence.request
        sequence.drawn += 1
        if sequence.drawn >= sequence.length:
            token_id = tokenizer.END
            sequence.finish = Finish.STOP
        else:
            token_id = next(sequence.tokens)
            if sequence.drawn >= request.sampling.max_tokens:
                sequence.finish = Finish.LENGTH
        sequence.ids.append(token_id)
        sequence.texts.append(sequence.decoder.push(token_id))
        sequence.history.append(token_id)
        sequence.due = tick if asked.itl is None else time.monotonic() + asked.itl
        sequence.wake()

    def _strike(self, sequence: _Sequence) -> None:
        strike = sequence.faults.strike
        with trace.use_span(sequence.span):
            _log.warning("a simulated fault strikes", extra={"fault": strike})
        if strike == "die":
            os._exit(DEATH_STATUS)
        elif strike == "kill":
            self._die()
        elif strike == "hang":
            sequence.due = float("inf")
        else:
            sequence.error = GenerationFailed("a simulated failure was asked for")
            sequence.wake()

    def _die(self) -> None:
        self._dead = True
        self._work.set()
        for sequence in (*self._running, *(entry[2] for entry in self._waiting)):
            sequence.error = sequence.error or EngineDead("the simulated engine is dead")
            sequence.wake()
