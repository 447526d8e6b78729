"""An OpenAI-compatible upstream as an engine: its own server renders, draws and detokenises.

A request is tried again while nothing of its answer has come: where the upstream is away, fails,
is busy, or breaks off. After the first text an answer is the service's to continue, and only
where the upstream can go on with an unfinished message (``Dialect.prefix``).
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from parley_inference.engine.base import (
    Continuation,
    EngineBusy,
    EngineDead,
    EngineError,
    EngineRequest,
    EngineUsage,
    GenerationFailed,
    Message,
    ModelInfo,
    Prompt,
    RequestRefused,
    Sampling,
    Step,
    TokenCounts,
)
from parley_inference.engine.openai import dialects, text_ids
from parley_inference.engine.openai.reading import AnswerReader
from parley_inference.engine.openai.refusals import UpstreamAway
from parley_inference.engine.openai.tokens import Counter
from parley_inference.engine.openai.upstream import Upstream
from parley_kit.errors import StartupError

_log = logging.getLogger(__name__)

_LISTING_SECONDS: Final = 5.0
# A wait that the upstream asks for is kept if it is no longer than this; else others are asked.
_MOST_BACKOFF: Final = 4.0
_FIRST_BACKOFF: Final = 0.2
_FAILED_LOOKS: Final = 3
_USUAL_CONTEXT: Final = 8192
# Seconds that a stream may stay open after the reason of its end, for the usage to follow, and
# after its last event: read to its end, its connection can be used again.
_USAGE_SECONDS: Final = 2.0
_END_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class OpenAiOptions:
    """What is asked of the upstream. Times in seconds; ``upstream_model``: its name there.

    ``external``: the upstream is outside the operator's own fleet.
    """

    model_id: str
    upstream_model: str
    dialect: str = "openai"
    revision: str = ""
    context_length: int = 0
    max_running: int = 32
    retries: int = 2
    start_seconds: float = 600.0
    look_seconds: float = 5.0
    external: bool = True


class OpenAiEngine:
    """Keeps the contract of ``engine.base.Engine`` with an upstream."""

    def __init__(self, options: OpenAiOptions, upstream: Upstream, counter: Counter) -> None:
        self._options = options
        self._dialect = dialects.DIALECTS[options.dialect]
        self._upstream = upstream
        self._counter = counter
        self._info: ModelInfo | None = None
        self._running = 0
        self._trouble = ""
        self._looking: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def info(self) -> ModelInfo:
        """What is served; valid once started."""
        if self._info is None:
            raise EngineDead("the engine has not started")
        return self._info

    @property
    def alive(self) -> bool:
        """Until it is stopped: an upstream that is away may come back."""
        return self._info is not None and not self._stopped

    @property
    def trouble(self) -> str:
        """Says so while the upstream does not answer."""
        return self._trouble

    @property
    def progress(self) -> str:
        """Nothing to tell."""
        return ""

    @property
    def kv_free_ratio(self) -> float:
        """Share of the places at the upstream that are free: of its cache nothing is known."""
        return max(0.0, 1.0 - self._running / self._options.max_running)

    # Start and end

    async def start(self) -> None:
        """Wait until the upstream lists the model."""
        began = time.monotonic()
        await self._counter.open()
        await self._upstream.open()
        while True:
            try:
                listed = await self._upstream.models(_LISTING_SECONDS)
                break
            except (UpstreamAway, EngineBusy) as error:
                waited = time.monotonic() - began
                if waited >= self._options.start_seconds:
                    raise StartupError(f"the upstream did not come: {error}") from error
                _log.info("waiting for the upstream", extra={"seconds": round(waited)})
            except EngineError as error:
                raise StartupError(f"the upstream cannot be used: {error}") from error
            await asyncio.sleep(min(1.0, self._options.start_seconds))
        self._info = self._describe(self._find(listed))
        self._looking = asyncio.create_task(self._look(), name="upstream-health")

    def _find(self, listed: Sequence[dict[str, Any]]) -> dict[str, Any]:
        wanted = self._options.upstream_model
        for entry in listed:
            if entry.get("id") == wanted:
                return entry
        if listed and self._options.dialect == "vllm":
            raise StartupError(f"the upstream does not list the model {wanted!r}")
        # llama.cpp answers to any name, Transformers loads on demand: neither lists it first.
        _log.warning("the upstream does not list the model", extra={"model": wanted})
        return {}

    def _describe(self, entry: dict[str, Any]) -> ModelInfo:
        options = self._options
        told = entry.get("max_model_len")
        length = told if isinstance(told, int) and told > 0 else _USUAL_CONTEXT
        return ModelInfo(
            model_id=options.model_id,
            engine="openai",
            revision=options.revision or f"upstream:{options.upstream_model}",
            context_length=options.context_length or length,
            tokenizer_id=self._counter.tokenizer_id,
            vocab_size=text_ids.VOCAB_SIZE,
            end_token_ids=frozenset(),
            max_running=options.max_running,
            external=options.external,
        )

    async def _look(self) -> None:
        """Ask for the models now and then: nobody else would notice that the upstream is back."""
        failed = 0
        while True:
            await asyncio.sleep(self._options.look_seconds)
            try:
                await self._upstream.read_key()
                await self._upstream.models(_LISTING_SECONDS)
            except EngineBusy:
                failed = 0
            except (EngineError, OSError) as error:
                failed += 1
                if failed == _FAILED_LOOKS:
                    self._trouble = "the upstream does not answer"
                    _log.warning("the upstream does not answer", extra={"reason": str(error)})
                continue
            else:
                failed = 0
            if self._trouble:
                self._trouble = ""
                _log.info("the upstream answers again")

    async def stop(self) -> None:
        """Close all connections."""
        self._stopped = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await self._upstream.close()
        self._counter.close()

    # Prompts

    async def prepare(self, messages: Sequence[Message], template_time: int) -> Prompt:
        """Count the prompt; the upstream renders it, at its own time."""
        del template_time
        counts = await self._counter.count(messages)
        return Prompt(
            (), messages, sum(counts.tokens) + counts.overhead, estimated=self._counter.estimates
        )

    async def count(self, messages: Sequence[Message]) -> TokenCounts:
        """Count with the local tokenizer, or estimate."""
        return await self._counter.count(messages)

    async def check(self, sampling: Sampling) -> None:
        """Refuse what the upstream would not follow."""
        dialects.check(self._dialect, sampling)

    def continuation(self, sampling: Sampling) -> Continuation:
        """By drawing anew, where the upstream goes on with an unfinished message."""
        if sampling.constrained or not self._dialect.prefix:
            return Continuation.NONE
        return Continuation.SAMPLED

    def drawn(self, token_ids: Sequence[int]) -> int:
        """Pieces of text: about tokens."""
        return text_ids.count_pieces(token_ids)

    def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> list[str | None]:
        """The texts that the ids hold."""
        del prompt
        try:
            return text_ids.decode_pieces(token_ids)
        except ValueError as error:
            raise RequestRefused("generated_token_ids", "not tokens of this engine") from error

    # Answers

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Step, None]:
        """Draw an answer; see the contract."""
        body = dialects.request_body(self._dialect, self._options.upstream_model, request)
        self._running += 1
        try:
            for tries_left in range(self._options.retries, -1, -1):
                begun = False
                try:
                    async with aclosing(self._attempt(request, body)) as steps:
                        async for step in steps:
                            begun = True
                            yield step
                    return
                except (UpstreamAway, EngineBusy) as error:
                    if begun:
                        raise GenerationFailed(str(error)) from error
                    wait = _backoff(error, self._options.retries - tries_left)
                    if not tries_left or wait > _MOST_BACKOFF:
                        raise
                    _log.warning("trying the upstream again", extra={"reason": str(error)})
                await asyncio.sleep(wait)
        finally:
            self._running -= 1

    async def _attempt(
        self, request: EngineRequest, body: dict[str, Any]
    ) -> AsyncGenerator[Step, None]:
        reader = AnswerReader(request.sampling.max_tokens)
        async with self._upstream.complete(body, request.trace_headers) as stream:
            parts = aiter(stream)
            while data := await _next(parts, reader):
                if (step := reader.read(data)) is not None:
                    yield step
        if reader.finish is None:
            raise UpstreamAway("the upstream ended the answer without a reason")
        yield Step((), (), reader.finish, usage=self._usage(reader, request))

    def _usage(self, reader: AnswerReader, request: EngineRequest) -> EngineUsage | None:
        """The upstream's count; else ours if it is exact."""
        if reader.usage is not None:
            return self._without_existing(reader.usage, request)
        if self._counter.estimates:
            return None
        return EngineUsage(request.prompt.length, 0, self._counter.length(reader.text))

    def _without_existing(self, usage: EngineUsage, request: EngineRequest) -> EngineUsage:
        """A continued answer was part of the upstream's prompt; it is counted once, as answer."""
        if not request.generated:
            return usage
        if self._counter.estimates:
            return usage._replace(prompt=max(1, usage.prompt - self.drawn(request.generated)))
        return usage._replace(prompt=request.prompt.length)


async def _next(parts: AsyncIterator[bytes], reader: AnswerReader) -> bytes:
    """The next bytes of a stream; none at its end, or when it should have ended."""
    if reader.finish is None:
        return await anext(parts, b"")
    try:
        async with asyncio.timeout(_END_SECONDS if reader.done else _USAGE_SECONDS):
            return await anext(parts, b"")
    except TimeoutError:
        return b""


def _backoff(error: EngineError, tries: int) -> float:
    """Seconds to wait before the next try: what the upstream asks for, else growing, jittered."""
    growing: float = _FIRST_BACKOFF * 2**tries * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
    if isinstance(error, EngineBusy):
        return max(error.retry_after, growing)
    return min(growing, _MOST_BACKOFF)
