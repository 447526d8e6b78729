"""The fleet as session sees it: replicas that choose by what they know, a queue, and faults.

The chooser, the outlier rules, slow start and the room that engines are given are those of
production, imported. What is modelled is what they act on: load reports that are a tenth of a
second old, several session replicas that know only their own requests, the time until a
frozen engine is noticed, and a queue for what the fleet has no room for.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf

from parley_session.fleet.choosing import Candidate, Chooser, Strategy, ramp, room
from parley_session.fleet.outliers import Outliers
from parley_session.fleet.scaling import EngineLoad
from parley_simulation.engine import EngineModel, Request, VirtualEngine
from parley_simulation.events import Events
from parley_simulation.workload import Chat, ChatModel

# Seconds until a frozen engine is held for silent (kit: two missed probes).
SILENCE_SECONDS = 5.0
# Seconds between two looks for room, in production.
LOOK_SECONDS = 0.05
# Seconds that a connection which is refused takes to be known.
REFUSAL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class WorldOptions:
    """What a fleet is like."""

    engines: int = 100
    sessions: int = 3
    strategy: Strategy = Strategy.AFFINITY
    slow_start_seconds: float = 30.0
    model: EngineModel = field(default_factory=EngineModel)
    chats: ChatModel = field(default_factory=ChatModel)
    seed: int = 1
    # Whether session holds back what the fleet has no room for.
    gated: bool = True


class _Session:
    """One session replica: what it knows of the engines."""

    def __init__(self, options: WorldOptions, number: int) -> None:
        rng = random.Random(f"{options.seed}:{number}")
        self.chooser = Chooser(options.strategy, rng=rng)
        self.outliers = Outliers()
        self.inflight: Counter[str] = Counter()
        self._capacity = options.model.batch
        self._slow_start = options.slow_start_seconds
        # As they were last seen: most have not changed since.
        self._candidates: dict[str, Candidate] = {}

    def candidate(self, engine: VirtualEngine, now: float) -> Candidate:
        """Return an engine as this replica knows it."""
        address, load = engine.address, engine.reported()
        own = self.inflight.get(address, 0)
        load = max(load, own)
        known = self._candidates.get(address)
        if (
            known is not None
            and known.load == load
            and known.weight == 1.0
            and known.incarnation == engine.incarnation
        ):
            return known
        weight = ramp(now - engine.since, self._slow_start)
        known = Candidate(address, load, self._capacity, weight, engine.incarnation)
        self._candidates[address] = known
        return known


class World:
    """Runs chats through the fleet; `finished` are the answers that have ended."""

    def __init__(self, options: WorldOptions) -> None:
        self.options = options
        self.events = Events()
        self.finished: list[Request] = []
        self.engines: dict[str, VirtualEngine] = {}
        # Engines that take nothing new: given up as silent, or scaled away.
        self.unready: set[str] = set()
        self.queue: deque[Request] = deque()
        self.lost = 0
        self._rng = random.Random(options.seed)
        self._sessions = [_Session(options, n) for n in range(options.sessions)]
        self._owner: dict[Request, tuple[_Session, str]] = {}
        self._next: dict[Request, Callable[[], None]] = {}
        self._numbers = 0
        for _ in range(options.engines):
            self.add_engine(-inf)

    # engines ------------------------------------------------------------------

    def add_engine(self, since: float | None = None) -> str:
        """Let an engine join; its address. `since`: when it came, for slow start."""
        self._numbers += 1
        address = f"10.0.{self._numbers // 256}.{self._numbers % 256}:50053"
        engine = VirtualEngine(
            self.events, address, self.options.model, self._ended, self._has_started
        )
        engine.since = self.events.now if since is None else since
        self.engines[address] = engine
        self._look()
        return address

    def drain_engine(self, address: str) -> None:
        """Give an engine nothing new; it goes when its last answer has ended."""
        self.unready.add(address)
        self._drop_if_idle(address)

    def _drop_if_idle(self, address: str) -> None:
        if address in self.unready and not self.engines[address].load:
            del self.engines[address]
            self.unready.discard(address)

    def ready(self) -> list[VirtualEngine]:
        """Engines that take new requests."""
        return [e for a, e in self.engines.items() if a not in self.unready]

    def loads(self) -> list[EngineLoad]:
        """What the engines report."""
        return [
            EngineLoad(
                len(engine._drawing),
                engine.load - len(engine._drawing),
                self.options.model.batch,
                engine.kv_used_share,
            )
            for engine in self.ready()
        ]

    # faults -------------------------------------------------------------------

    def crash(self, address: str, seconds: float) -> None:
        """Kill an engine; it is there again, empty, after so long."""
        self.unready.add(address)
        self._move(self.engines[address].lose_all(), address)

        def back() -> None:
            self.engines[address].since = self.events.now
            self.unready.discard(address)
            self._look()

        self.events.after(seconds, back)

    def freeze(self, address: str, seconds: float) -> None:
        """Stop an engine; its answers are given up once it is found to be silent."""
        engine = self.engines[address]
        engine.frozen = True

        def silent() -> None:
            self.unready.add(address)
            self._move(engine.lose_all(), address)

        def back() -> None:
            engine.thaw()
            self.unready.discard(address)
            self._look()

        self.events.after(SILENCE_SECONDS, silent)
        self.events.after(max(seconds, SILENCE_SECONDS + 1), back)

    def refuse(self, address: str, seconds: float) -> None:
        """Let an engine refuse whatever comes, though it looks well."""
        self.engines[address].refusing = True

        def back() -> None:
            self.engines[address].refusing = False

        self.events.after(seconds, back)

    def _move(self, requests: Iterable[Request], address: str) -> None:
        for request in requests:
            session, _ = self._owner.pop(request)
            session.inflight[address] -= 1
            session.outliers.failed(address, self.events.now)
            request.moves += 1
            request.tried = {address}
            self._place(request, session)

    # requests -----------------------------------------------------------------

    def play(self, chats: Iterable[Chat]) -> None:
        """Let chats begin at their times."""
        for chat in chats:
            self.events.at(chat.at, lambda c=chat: self._ask(c, 0, 0))  # type: ignore[misc]

    def _ask(self, chat: Chat, number: int, history: int) -> None:
        model, turn = self.options.chats, chat.turns[number]
        prompt = model.system + history + turn.question
        answer = turn.answer
        if prompt + answer > model.context:
            return
        request = Request(chat.id, prompt, answer, self.events.now, model.system)
        if number + 1 < len(chat.turns):
            following = history + turn.question + answer
            self._next[request] = lambda: self.events.after(
                chat.turns[number + 1].think, lambda: self._ask(chat, number + 1, following)
            )
        if self.options.gated and (self.queue or not self._has_room()):
            self.queue.append(request)
            self._look()
        else:
            self._place(request, self._rng.choice(self._sessions))

    def _has_room(self) -> bool:
        return any(room(e.model.batch, e.reported()) for e in self.ready())

    def _look(self) -> None:
        if self.queue:
            self.events.after(LOOK_SECONDS, self._dispatch)

    def _dispatch(self) -> None:
        free = sum(room(e.model.batch, max(e.load, e.reported())) for e in self.ready())
        while self.queue and free > 0:
            free -= 1
            self._place(self.queue.popleft(), self._rng.choice(self._sessions))

    def _place(self, request: Request, session: _Session) -> None:
        now = self.events.now
        serving = {e.address: e for e in self.ready()}
        able = session.outliers.able(list(serving), now)
        candidates = [
            session.candidate(serving[address], now)
            for address in able
            if address not in request.tried
        ]
        choice = session.chooser.choose(request.chat, candidates)
        if choice is None:
            request.tried.clear()
            self.events.after(LOOK_SECONDS * 5, lambda: self._place(request, session))
            return
        engine = serving[choice.address]
        session.outliers.trying(choice.address, now)
        if engine.refusing:
            session.outliers.failed(choice.address, now)
            request.tried.add(choice.address)
            self.events.after(REFUSAL_SECONDS, lambda: self._place(request, session))
            return
        session.inflight[choice.address] += 1
        self._owner[request] = (session, choice.address)
        engine.submit(request)

    def _has_started(self, request: Request) -> None:
        session, address = self._owner[request]
        engine = self.engines[address]
        session.chooser.drawn(request.chat, address, engine.incarnation)
        session.outliers.succeeded(address)

    def _ended(self, request: Request) -> None:
        session, address = self._owner.pop(request)
        session.inflight[address] -= 1
        self.finished.append(request)
        self._drop_if_idle(address)
        following = self._next.pop(request, None)
        if following is not None:
            following()
        self._look()
