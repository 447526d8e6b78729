"""A virtual engine: continuous batching, prefill, a prefix cache; no text.

Requests join a batch of at most `batch` as places come free. A request's prompt, less what the
prefix cache has, is computed by one prefill after the other; then its tokens are drawn, all
requests of the batch at one pace that falls with their number. What a model leaves out: blocks
evicted inside one chat (a chat's prefix is dropped whole, least recently used first), preemption
for lack of KV cache, and decoding that slows down while a prompt is computed.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import inf

from parley_simulation.events import Events

BLOCK_TOKENS = 16
REPORT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class EngineModel:
    """How fast an engine is. Times in seconds."""

    batch: int = 16
    # Before the first token whatever the prompt, not one after the other.
    first: float = 0.02
    prefill_tokens_per_second: float = 3000.0
    # Between two tokens, alone in the batch, and more for each other request in it.
    itl: float = 0.03
    itl_more: float = 0.0015
    # Tokens that its KV cache holds.
    cache_tokens: int = 120_000


@dataclass(slots=True, eq=False)
class Request:
    """One turn of a chat, from its arrival to its last token."""

    chat: str
    prompt_tokens: int
    answer_tokens: int
    arrived: float
    # Of the prompt, what every chat begins with.
    shared_tokens: int = 0
    tried: set[str] = field(default_factory=set)
    cached_tokens: int = 0
    drawn: float = 0.0
    first_at: float = inf
    ended_at: float = inf
    moves: int = 0

    @property
    def ttft(self) -> float:
        """Seconds to the first token."""
        return self.first_at - self.arrived

    @property
    def tpot(self) -> float:
        """Seconds a token after the first."""
        return (self.ended_at - self.first_at) / max(1, self.answer_tokens - 1)


class VirtualEngine:
    """One engine. `done(request)` is called when an answer has ended, `started` at its first."""

    def __init__(
        self,
        events: Events,
        address: str,
        model: EngineModel,
        done: Callable[[Request], None],
        started: Callable[[Request], None],
    ) -> None:
        self.address = address
        self.model = model
        # Changes when it dies.
        self.incarnation = "0"
        self.since = events.now
        self.frozen = False
        self.refusing = False
        self._events = events
        self._done = done
        self._started = started
        self._reset()

    def _reset(self) -> None:
        self.waiting: deque[Request] = deque()
        self.prefilling: set[Request] = set()
        self._drawing: list[tuple[float, int, Request]] = []
        self._order = itertools.count()
        # Tokens that each request of the batch has drawn since the start, by the common pace.
        self._pace = 0.0
        self._pace_at = self._events.now
        self._planned = 0
        self._prefill_free = 0.0
        self._cache: OrderedDict[str, int] = OrderedDict()
        self._cache_tokens = 0
        self._held_tokens = 0
        self._generation = object()
        self._reported, self._reported_at = 0, -1

    # load ---------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self.prefilling) + len(self._drawing)

    @property
    def load(self) -> int:
        """Requests that it has."""
        return self.running + len(self.waiting)

    @property
    def kv_used_share(self) -> float:
        """Share of its KV cache that requests hold."""
        return min(1.0, self._held_tokens / self.model.cache_tokens)

    def reported(self) -> int:
        """Return the load as its last report said."""
        self._note_report()
        return self._reported

    def _note_report(self) -> None:
        tick = int(self._events.now / REPORT_SECONDS)
        if tick != self._reported_at:
            self._reported, self._reported_at = self.load, tick

    # requests -----------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Take a request."""
        self._note_report()
        self.waiting.append(request)
        self._admit()

    def lose_all(self) -> list[Request]:
        """Die, or be given up: what it had, with the tokens that were drawn."""
        self._advance()
        lost = [*self.waiting, *self.prefilling]
        for end, _, request in self._drawing:
            # At least the first token is there.
            left = max(0.0, end - self._pace)
            request.drawn = max(request.drawn, min(request.answer_tokens - left, 1e9))
            lost.append(request)
        self._reset()
        self.incarnation = str(int(self.incarnation) + 1)
        return lost

    def thaw(self) -> None:
        """Go on after having been frozen."""
        self.frozen = False
        self._pace_at = self._events.now
        self._admit()

    def _admit(self) -> None:
        while self.waiting and self.running < self.model.batch and not self.frozen:
            request = self.waiting.popleft()
            self.prefilling.add(request)
            # What was drawn elsewhere is part of the prompt here.
            prompt = request.prompt_tokens + int(request.drawn)
            cached = self._lookup(request)
            if not request.drawn:
                request.cached_tokens = cached
            self._held_tokens += prompt + request.answer_tokens
            now = self._events.now
            begun = max(now, self._prefill_free)
            self._prefill_free = begun + (prompt - cached) / self.model.prefill_tokens_per_second
            self._at(self._prefill_free + self.model.first, partial(self._start, request))

    def _at(self, time: float, action: Callable[[], None]) -> None:
        """Do something later, unless everything was lost by then."""
        generation = self._generation

        def act() -> None:
            if self._generation is not generation:
                return
            if self.frozen:
                self._at(self._events.now + 0.1, action)
            else:
                action()

        self._events.at(time, act)

    def _start(self, request: Request) -> None:
        self._note_report()
        self._advance()
        self.prefilling.discard(request)
        if request.first_at == inf:
            request.first_at = self._events.now
            self._started(request)
        left = max(0.0, request.answer_tokens - 1 - request.drawn)
        heapq.heappush(self._drawing, (self._pace + left, next(self._order), request))
        self._schedule()

    @property
    def _step(self) -> float:
        return self.model.itl + self.model.itl_more * max(0, len(self._drawing) - 1)

    def _advance(self) -> None:
        now = self._events.now
        if not self.frozen:
            self._pace += (now - self._pace_at) / self._step
        self._pace_at = now

    def _schedule(self) -> None:
        """Plan the next end; what was planned before is void, as the pace has changed."""
        self._planned += 1
        if self._drawing:
            plan, end = self._planned, self._drawing[0][0]
            seconds = max(0.0, end - self._pace) * self._step
            self._at(self._events.now + seconds, lambda: self._finish(plan))

    def _finish(self, plan: int) -> None:
        if plan != self._planned:
            return
        self._note_report()
        self._advance()
        ended = []
        while self._drawing and self._drawing[0][0] <= self._pace + 1e-6:
            ended.append(heapq.heappop(self._drawing)[2])
        for request in ended:
            request.ended_at = self._events.now
            self._held_tokens -= request.prompt_tokens + int(request.drawn) + request.answer_tokens
            self._remember(request)
        self._admit()
        self._schedule()
        for request in ended:
            self._done(request)

    # prefix cache -------------------------------------------------------------

    def _lookup(self, request: Request) -> int:
        known = self._cache.get(request.chat, 0)
        if known:
            self._cache.move_to_end(request.chat)
        elif self._cache:
            known = request.shared_tokens
        return min(known, request.prompt_tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS

    def _remember(self, request: Request) -> None:
        tokens = request.prompt_tokens + request.answer_tokens
        self._cache_tokens += tokens - self._cache.pop(request.chat, 0)
        self._cache[request.chat] = tokens
        while self._cache_tokens > self.model.cache_tokens and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cache_tokens -= dropped
