"""The contract of the fleet: the engines that answers are drawn from.

Events are the messages of `parley.inference.v1` as they came over the wire: the
token path copies nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from parley.inference.v1 import inference_pb2 as pb


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the fleet serves."""

    id: str
    # Tokens of prompt and answer together.
    context_length: int
    # `vllm`, `openai` or `sim`.
    engine: str
    revision: str
    tokenizer_id: str
    # Names of the adapters of this model, each a model of its own.
    adapters: tuple[str, ...] = ()
    # Drawn outside the operator's own fleet.
    external: bool = False
    # Of an adapter: the name of the model that it changes.
    base: str = ""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of messages, in the order in which they were given."""

    tokens: tuple[int, ...]
    # What the chat template adds once a prompt.
    overhead: int
    tokenizer_id: str


def _nobody_asks() -> None:
    """Do nothing."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Draw:
    """What to draw: a request, and what the fleet needs to place it.

    `request` is without `request_id`, which the fleet sets at each try from
    `request_id`, and without `own_fleet_only`, which it sets by the tenant's policy.
    """

    request: pb.GenerateRequest
    request_id: str
    # When to give up, in the loop's time.
    deadline: float
    # Requests of one affinity prefer one engine, whose prefix cache is warm.
    affinity: str
    # Bytes of the answer that exist already, those of `generated_token_ids`.
    offset: int = 0
    # Whose it is: not every tenant may be served by every engine.
    tenant: str = ""
    # Called when the request was sent to an engine, each time.
    placed: Callable[[], None] = _nobody_asks
    # Whether it may yet be thrown away: for so long only the operator's own fleet draws it.
    tentative: Callable[[], bool] = _never

    def time_left(self) -> float:
        """Seconds until the deadline; always positive, as a timeout has to be."""
        return max(0.001, self.deadline - asyncio.get_running_loop().time())


# Of the model that is asked for: any.
ANY_MODEL = ""


class Fleet(Protocol):
    """Engines, seen as one. A tenant meets only those that it is allowed."""

    async def models(self, tenant: str) -> Sequence[Model]:
        """List the models that a tenant is served now, each once."""

    async def find(self, model: str, tenant: str) -> Model:
        """Return a model (or adapter) by name; an empty name is the default model.

        Raises `model_not_found`; `model_not_allowed` where only engines serve it, or have
        served it, that the tenant is not allowed; `engine_unavailable` when none of its
        engines is ready, or is left.
        """

    def room(self, model: str, tenant: str | None = None) -> int:
        """Return how many more answers could be drawn now, as far as reported. ANY_MODEL: of any.

        By the engines that a tenant is allowed; None: by all.

        A little more than the engines batch, so that they never wait for the next one.
        """

    def capacity(self, model: str, tenant: str | None = None) -> int:
        """Return how many answers the engines of a model draw at a time; `tenant` as in `room`."""

    def has_own(self, model: str, tenant: str) -> bool:
        """Whether an engine of the operator's own fleet takes requests for a model now."""

    def demand(self, queued: int) -> Mapping[str, float]:
        """Return the work there is, in engines, for each model; `queued` wait for any of them.

        What is queued counts for the models without room, in proportion to their work.
        """

    async def count_tokens(
        self, model: str, messages: Sequence[pb.ChatMessage], timeout: float, tenant: str
    ) -> TokenCounts:
        """Count the tokens of messages; at most 1,000. `timeout` in seconds.

        Raises `engine_unavailable`, `model_not_found`, `invalid_request`.
        """

    async def check_sampling(
        self, model: str, sampling: pb.SamplingOptions, timeout: float, tenant: str
    ) -> None:
        """Ask an engine whether it can serve these options. `timeout` in seconds.

        Raises `invalid_request`, and as `count_tokens`.
        """

    def draw(self, draw: Draw) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Draw an answer: `started` once, chunks without gap or overlap, `finished`.

        Before the first token another engine is tried, and waited for when none is
        left; after it the answer is continued on another one. The caller bounds the
        time and closes the iterator. Raises `engine_lost` when an answer that has
        begun cannot be continued, and the refusals of the request itself
        (`context_too_long`, `invalid_request`, `model_not_found`).
        """
