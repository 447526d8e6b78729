"""What an engine is to this service: it turns prompts into tokens, and says how it fares.

The contract is small on purpose. Bounds, the queue at the door, coalescing, stop strings,
deadlines and the arithmetic of continuation belong to the service and are the same for all
engines. An engine declares what it can do, draws tokens, and stops at once when the stream it
returned is closed.

::

    EngineError
    ├── RequestRefused      this request cannot be served by this engine; the caller's fault
    ├── PromptTooLong       prompt and answer do not fit, as only the engine could tell
    ├── EngineBusy          the engine takes no more for now; nothing was drawn
    ├── GenerationFailed    this request was lost; the engine lives
    └── EngineDead          the engine is gone; every request on it is lost
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol


class EngineError(Exception):
    """What went wrong, as a sentence without prompt text."""


class RequestRefused(EngineError):
    """The engine cannot serve this request; ``field`` names what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class PromptTooLong(EngineError):
    """Prompt and answer do not fit into the model's context."""


class EngineBusy(EngineError):
    """The engine takes no more for now; ``retry_after`` in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class GenerationFailed(EngineError):
    """The engine lost this request and lives on."""


class EngineDead(EngineError):
    """The engine is gone and does not come back in this process."""


class Role(Enum):
    """Who wrote a message, in the words of chat templates."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Message(NamedTuple):
    """One message of a prompt."""

    role: Role
    content: str


class Continuation(Enum):
    """How an unfinished answer can be continued from its token ids."""

    EXACT = "exact"
    SAMPLED = "sampled"
    NONE = "none"


class Finish(Enum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Sampling:
    """Decoding options, resolved. Stop strings are absent: the service handles them.

    ``max_tokens`` counts the whole answer, tokens that exist already included.
    ``json_schema`` is JSON text, or empty.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    json_schema: str = ""

    @property
    def constrained(self) -> bool:
        """Whether drawing depends on state that the token ids alone do not restore."""
        return bool(self.json_schema or self.presence_penalty or self.frequency_penalty)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt: the chat template's result as token ids, and what it came from.

    Where an upstream renders it, ``token_ids`` is empty and ``counted`` says how long it is, by
    the upstream's own tokenizer or, if ``estimated``, about.
    """

    token_ids: Sequence[int]
    messages: Sequence[Message] = field(repr=False)
    counted: int = 0
    estimated: bool = False

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return self.counted or len(self.token_ids)


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One answer to draw. ``generated`` are the tokens that exist already."""

    request_id: str
    prompt: Prompt
    sampling: Sampling
    # An adapter's name; empty: the model itself.
    adapter: str = ""
    generated: Sequence[int] = ()
    cache_salt: str = ""
    priority: int = 0
    trace_headers: dict[str, str] = field(default_factory=dict)


class EngineUsage(NamedTuple):
    """Tokens of a request as its engine counted them; ``completion``: those of this request."""

    prompt: int
    cached: int
    completion: int


@dataclass(slots=True)
class Step:
    """Tokens drawn since the last step, each with the text that it completes.

    ``texts[i]`` belongs to ``token_ids[i]``: ``""`` for a token without text, None for one that
    ends inside a character (its bytes appear with a later token). An end-of-sequence token is
    among the ids. ``cached_prompt_tokens`` and ``scheduled_at`` (``time.monotonic()`` seconds;
    0: unknown) are set on the first step of a request, ``finish`` on its last, and with it
    ``usage`` where the engine counts otherwise than by its token ids.
    """

    token_ids: Sequence[int]
    texts: Sequence[str | None]
    finish: Finish | None = None
    cached_prompt_tokens: int = 0
    scheduled_at: float = 0.0
    usage: EngineUsage | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is served. ``end_token_ids`` end an answer; ``vocab_size`` bounds token ids.

    ``adapters`` can be asked for by name instead of the model; each has a revision of its own.
    ``external``: what is asked leaves the operator's own fleet.
    """

    model_id: str
    engine: str
    revision: str
    context_length: int
    tokenizer_id: str
    vocab_size: int
    end_token_ids: frozenset[int]
    max_running: int
    adapters: Mapping[str, str] = field(default_factory=dict)
    external: bool = False

    def serves(self, name: str) -> bool:
        """Whether ``name`` is the model or one of its adapters."""
        return name == self.model_id or name in self.adapters

    def revision_of(self, name: str) -> str:
        """The revision of the model or adapter ``name``."""
        return self.adapters.get(name, self.revision)


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens that each message adds to a prompt, and those added once."""

    tokens: list[int]
    overhead: int


class Engine(Protocol):
    """One model, ready to answer once ``start`` has returned."""

    @property
    def info(self) -> ModelInfo:
        """What is served; valid once started."""

    @property
    def alive(self) -> bool:
        """Whether requests can be served; False for good once the engine has died."""

    @property
    def trouble(self) -> str:
        """Why no request can be served for now, though the engine lives; empty: it can."""

    @property
    def progress(self) -> str:
        """What the start is at, in words for operators; empty: nothing to tell."""

    @property
    def kv_free_ratio(self) -> float:
        """Share of the KV cache that is free, 0 to 1."""

    async def start(self) -> None:
        """Load the model and draw a first token. Cancelling it ends what was begun.

        Raises StartupError with a sentence for the operator.
        """

    async def stop(self) -> None:
        """End the engine and every process of its own. May be called at any time, repeatedly."""

    async def prepare(self, messages: Sequence[Message], template_time: int) -> Prompt:
        """Render ``messages`` with the chat template, which sees ``template_time`` as now.

        Raises RequestRefused when the model's template does not take these messages.
        """

    async def count(self, messages: Sequence[Message]) -> TokenCounts:
        """Count tokens, without touching what draws them. Raises RequestRefused."""

    async def check(self, sampling: Sampling) -> None:
        """Raise RequestRefused for options that this engine cannot serve.

        Raises EngineBusy if it has no time to judge them now.
        """

    def continuation(self, sampling: Sampling) -> Continuation:
        """How an answer drawn with these options can be continued."""

    def drawn(self, token_ids: Sequence[int]) -> int:
        """How many tokens of the model the ids of an answer stand for."""

    def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> list[str | None]:
        """The texts that the tokens of an answer complete, as ``Step.texts`` gave them."""

    def generate(self, request: EngineRequest) -> AsyncGenerator[Step, None]:
        """Draw an answer, or go on with one after ``request.generated``.

        The last step has ``finish``. Closing or cancelling the generator aborts the request;
        it holds no place in the engine once that has returned.
        Raises RequestRefused, PromptTooLong, EngineBusy, GenerationFailed, EngineDead.
        """
