"""A world of session replicas over one store and one log, with engines and cache made up.

Replicas share `MemoryStore` and `MemoryRunLog` and can be killed at any write: a
killed replica reaches nothing any more, as a process that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from parley.inference.v1 import inference_pb2 as pb

from parley_kit.errors import ServiceError
from parley_kit.ids import uuid7
from parley_session.answers.base import Answer, Hit, Miss, Query
from parley_session.bootstrap import Outside, Session, build
from parley_session.clock import Clock
from parley_session.config import SessionSettings
from parley_session.domain import errors
from parley_session.domain.model import (
    CacheStatus,
    Chat,
    FinishReason,
    Invalidation,
    Message,
    Options,
    Principal,
    Run,
)
from parley_session.domain.options import AskedOptions, resolve
from parley_session.fleet.base import Draw, Model, TokenCounts
from parley_session.fleet.policy import EnginePolicy
from parley_session.queue.base import QueueLimits
from parley_session.queue.memory import MemoryRunQueue
from parley_session.runs.asking import Completion, NewChat
from parley_session.runs.keys import RequestKey
from parley_session.runs.live import Ended, Piece, Queued
from parley_session.runs.memory_log import MemoryRunLog
from parley_session.store.memory.store import MemoryStore
from support.poll import until

ALICE = Principal("acme", "alice")
BOB = Principal("acme", "bob")
LEASE = 15.0
SETTINGS = SessionSettings(
    mongodb_uri="mongodb://nowhere",  # type: ignore[arg-type]
    log_redis_url="redis://nowhere",  # type: ignore[arg-type]
    inference_targets="nowhere:1",
    lease_seconds=LEASE,
)
# Every write of the store and the log: where a replica can be killed.
STORE_WRITES = frozenset(
    {
        "insert_chat", "accept_turn", "settle_turn", "set_title", "set_summary", "mark_deleted",
        "strip_chat",
        "insert_message", "set_tokens", "rate_message", "flag_message", "delete_messages",
        "insert_run", "hold_run", "hand_over", "move_beat", "start_run",
        "clear_log",
        "commit_run", "request_cancel", "fence_runs", "delete_runs", "insert_invalidation",
        "confirm_invalidation", "remove_tombstone", "insert_key", "replace_key",
        "delete_expired_keys", "insert_usage", "claim_job", "end_job",
        "mark_reporting", "raise_report", "settle_reporting",
    }
)  # fmt: skip
QUEUE_WRITES = frozenset({"reserve", "release", "put", "take", "put_back", "done"})
LOG_WRITES = frozenset({"create", "append", "fence", "renew", "delete"})


class Killed(Exception):
    """The replica is gone."""


class ManualClock:
    """Both clocks, moved by hand."""

    # By how much the wall clock was set.
    leapt = 0.0

    def __init__(self) -> None:
        self.seconds = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds

    def leap(self, seconds: float) -> None:
        """Set the wall clock, as who corrects it does; no time passes."""
        self.leapt += seconds

    def monotonic(self) -> float:
        """Return the monotonic clock."""
        return self.seconds

    def now(self) -> datetime:
        """Return the wall clock."""
        return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=self.seconds + self.leapt)

    def clock(self) -> Clock:
        """Return it as the service takes it."""
        return Clock(now=self.now, monotonic=lambda: self.seconds)


@dataclass
class Death:
    """When a replica dies: at its write number `at`, before or after it is applied."""

    at: int = 0
    after: bool = False
    dead: bool = False
    writes: list[str] = field(default_factory=list)

    async def reach(self) -> None:
        """Get to what is outside of the replica. Raises Killed if the replica is gone."""
        if self.dead:
            raise Killed

    async def write(self, name: str, call: Callable[[], Any]) -> Any:
        """Do a write, or die at it."""
        await self.reach()
        self.writes.append(name)
        if len(self.writes) != self.at:
            return await call()
        if self.after:
            await call()
        self.dead = True
        raise Killed


class Mortal:
    """A store or log as one replica reaches it."""

    def __init__(self, inner: Any, death: Death, writes: frozenset[str]) -> None:
        self._inner = inner
        self._death = death
        self._writes = writes

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name == "follow":
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            if name in self._writes:
                return await self._death.write(name, lambda: method(*args, **kwargs))
            await self._death.reach()
            return await method(*args, **kwargs)

        return call


class FakeFleet:
    """An engine that says `answer`, one piece a token.

    It stops before piece `hold_at` until `release` is set, and fails there with
    `failure` if one is set. Token ids are numbers of pieces.
    """

    def __init__(self) -> None:
        self.answer: list[str] = ["Hel", "lo", ", ", "wör", "ld", "!"]
        self.served = {"sim": model()}
        # Tenants for whom engines were looked for or used.
        self.tenants: set[str] = set()
        self.policy = EnginePolicy()
        self.hold_at: int | None = None
        self.release = asyncio.Event()
        self.failure: Exception | None = None
        self.draws: list[Draw] = []
        self.drawing = 0
        self.counted: list[int] = []
        self.full = False
        # Tenants whose engines, of those that are allowed them, are all at work.
        self.full_for: set[str] = set()
        self.slots = 1000
        # Between two pieces others have their turn, as with an engine elsewhere.
        self.pause = True

    async def models(self, tenant: str) -> Sequence[Model]:
        return [m for m in self.served.values() if self.policy.allows(tenant, m)]

    async def find(self, name: str, tenant: str) -> Model:
        if not self.served:
            raise errors.engine_unavailable()
        found = self.served.get(name or next(iter(self.served)))
        if found is None:
            raise errors.model_not_found(name)
        self.tenants.add(tenant)
        if not self.policy.allows(tenant, found):
            raise errors.model_not_allowed(name)
        return found

    def room(self, name: str, tenant: str | None = None) -> int:
        return 0 if self.full or tenant in self.full_for else self.slots - self.drawing

    def capacity(self, name: str, tenant: str | None = None) -> int:
        return self.slots

    def demand(self, queued: int) -> Mapping[str, float]:
        return dict.fromkeys(self.served, (self.drawing + queued) / self.slots)

    async def count_tokens(
        self, name: str, messages: Sequence[pb.ChatMessage], timeout: float, tenant: str
    ) -> TokenCounts:
        if not self.served:
            raise errors.engine_unavailable()
        self.counted.append(len(messages))
        self.tenants.add(tenant)
        return TokenCounts(
            tuple(tokens_of(message.content) for message in messages), 3, "fake-tokenizer"
        )

    async def check_sampling(
        self, name: str, sampling: pb.SamplingOptions, timeout: float, tenant: str
    ) -> None:
        await self.find(name, tenant)

    async def draw(self, draw: Draw) -> AsyncGenerator[pb.GenerateResponse, None]:
        self.draws.append(draw)
        self.tenants.add(draw.tenant)
        self.drawing += 1
        draw.placed()
        try:
            begun = len(draw.request.generated_token_ids)
            yield pb.GenerateResponse(
                started=pb.GenerationStarted(
                    prompt_tokens=7, cached_prompt_tokens=2, queue_seconds=0.0
                )
            )
            offset = sum(len(piece.encode()) for piece in self.answer[:begun])
            for number in range(begun, len(self.answer)):
                if number == self.hold_at:
                    await self.release.wait()
                    if self.failure is not None:
                        raise self.failure
                if self.pause:
                    await asyncio.sleep(0)
                text = self.answer[number]
                yield pb.GenerateResponse(
                    chunk=pb.GenerationChunk(offset=offset, text=text, token_ids=[number])
                )
                offset += len(text.encode())
            yield pb.GenerateResponse(
                finished=pb.GenerationFinished(
                    finish_reason=pb.FINISH_REASON_STOP,
                    prompt_tokens=7,
                    cached_prompt_tokens=2,
                    completion_tokens=len(self.answer),
                )
            )
        finally:
            self.drawing -= 1

    @property
    def text(self) -> str:
        return "".join(self.answer)


class FakeCache:
    """A cache that keeps what it is given; `away`: it answers nothing."""

    def __init__(self) -> None:
        self.entries: dict[Query, Answer] = {}
        self.lookups: list[Query] = []
        self.invalidated: list[Invalidation] = []
        self.away = False
        self.lease = ""
        self.lease_seconds = 0.0
        self.released: list[str] = []
        self.renewed: list[str] = []
        # What is refused in global scope, by question.
        self.personal: set[str] = set()

    async def lookup(self, query: Query) -> Hit | Miss:
        self.lookups.append(query)
        if self.away:
            return Miss("unavailable")
        if query.shared and query.question in self.personal:
            return Miss("personal_data")
        # In global scope whose question it was is no part of the key.
        asked = replace(query, user="") if query.shared else query
        found = self.entries.get(asked)
        if found is None:
            return Miss("not_found", "stamp", self.lease, self.lease_seconds)
        return Hit(
            status=CacheStatus.EXACT,
            answer=found.text,
            finish_reason=found.finish_reason,
            prompt_tokens=found.prompt_tokens,
            completion_tokens=found.completion_tokens,
            source_message=found.source_message,
            source_chat=found.source_chat,
            age_seconds=1.0,
        )

    async def store(self, query: Query, answer: Answer) -> str:
        if self.away:
            return "unavailable"
        if query.shared and self.personal & {query.question, answer.text}:
            return "personal_data"
        self.entries[replace(query, user="") if query.shared else query] = answer
        return ""

    async def renew(self, query: Query, lease: str, seconds: float) -> float:
        del query, seconds
        self.renewed.append(lease)
        return self.lease_seconds

    async def release(self, query: Query, lease: str) -> None:
        del query
        self.released.append(lease)

    async def invalidate(self, invalidation: Invalidation) -> bool:
        if self.away:
            return False
        self.invalidated.append(invalidation)
        self.entries = {
            query: answer
            for query, answer in self.entries.items()
            if answer.source_chat != invalidation.chat
            or invalidation.message not in (None, answer.source_message)
        }
        return True


@dataclass
class Replica:
    """One session replica."""

    session: Session
    death: Death

    async def start(self, asked: Completion, principal: Principal = ALICE) -> Any:
        """Accept a turn."""
        return await self.session.servicer._starter.start(principal, asked)

    async def follow(
        self,
        run_id: str,
        offset: int = 0,
        live: Any = None,
        principal: Principal = ALICE,
        lost_replica: str = "",
    ) -> AsyncIterator[Queued | Piece | Ended]:
        """Read a run."""
        follower = self.session.servicer._follower
        async with contextlib.aclosing(
            follower.follow(principal, run_id, offset, live, lost_replica=lost_replica)
        ) as events:
            async for event in events:
                yield event

    async def complete(self, asked: Completion, principal: Principal = ALICE) -> tuple[str, Ended]:
        """Accept a turn and read its answer to the end."""
        accepted = await self.start(asked, principal)
        return await self.read(accepted.run.id, live=accepted.live, principal=principal)

    async def read(
        self,
        run_id: str,
        offset: int = 0,
        live: Any = None,
        principal: Principal = ALICE,
        lost_replica: str = "",
    ) -> tuple[str, Ended]:
        """Read a run to its end."""
        text = ""
        async with asyncio.timeout(5):
            async for event in self.follow(run_id, offset, live, principal, lost_replica):
                if isinstance(event, Ended):
                    return text, event
                if isinstance(event, Piece):
                    text += event.text
        raise AssertionError("a stream without a last event")

    async def delete(self, chat_id: str, principal: Principal = ALICE) -> bool:
        """Delete a chat."""
        return await self.session.servicer._deleter.delete(principal, chat_id)

    async def cancel(self, run_id: str, wait: float = 2.0) -> Run:
        """Cancel a run."""
        return await self.session.servicer._canceller.cancel(ALICE, run_id, wait)

    async def quiet(self) -> None:
        """Wait until no run is made here."""
        await until(lambda: len(self.session.live_runs) == 0, what="no live run")

    async def tidy(self) -> None:
        """Do all periodic jobs once."""
        for job in self.session.jobs:
            await job.work(None)

    async def sweep(self) -> None:
        """Do all periodic jobs once, and begin what waits as far as there is room."""
        await self.tidy()
        await self.dispatch()

    async def dispatch(self) -> None:
        """Begin what waits as far as there is room."""
        while await self.session.dispatcher.dispatch():
            pass

    async def kill(self) -> None:
        """End it as a crash does: nothing of it is written any more."""
        self.death.dead = True
        await self.session.live_runs.drain(0)


class World:
    """Everything outside of the replicas, and the replicas."""

    def __init__(self, time: ManualClock | None = None, fleet: FakeFleet | None = None) -> None:
        self.time = time or ManualClock()
        self.store = MemoryStore(now=self.time.now)
        self.log = MemoryRunLog()
        self.fleet = fleet or FakeFleet()
        self.cache = FakeCache()
        self.queue = MemoryRunQueue(QueueLimits(total=12, user=6), monotonic=self.time.monotonic)
        self.replicas: list[Replica] = []

    def replica(self, death: Death | None = None, **settings: Any) -> Replica:
        """Start a replica."""
        death = death or Death()
        outside = Outside(
            store=Mortal(self.store, death, STORE_WRITES),
            log=Mortal(self.log, death, LOG_WRITES),
            fleet=self.fleet,
            cache=self.cache,
            queue=Mortal(self.queue, death, QUEUE_WRITES),
        )
        session = build(SETTINGS.model_copy(update=settings), outside, self.time.clock())
        replica = Replica(session, death)
        self.replicas.append(replica)
        return replica

    def saturate(self) -> None:
        """Leave no room in the fleet, nor for anything to wait."""
        self.fleet.full = True
        self.queue.limits = QueueLimits(total=0)

    async def close(self) -> None:
        """End all replicas."""
        self.fleet.release.set()
        for replica in self.replicas:
            await replica.session.live_runs.drain(0)

    async def repair(self, replica: Replica) -> None:
        """Let a replica sweep until the lease of whoever fell silent has passed, and after."""
        for _ in range(3):
            self.time.advance(LEASE)
            await replica.sweep()
            await replica.quiet()

    async def chat(self, chat_id: str, principal: Principal = ALICE) -> Chat:
        """Read a chat."""
        chat = await self.store.get_chat(principal, chat_id)
        assert chat is not None
        return chat

    async def messages(self, chat_id: str, principal: Principal = ALICE) -> Sequence[Message]:
        """Read a chat's messages."""
        chat = await self.chat(chat_id, principal)
        return await self.store.get_messages(principal, chat_id, 0, chat.next_seq)

    async def run(self, run_id: str, principal: Principal = ALICE) -> Run:
        """Read a run."""
        run = await self.store.get_run(principal, run_id)
        assert run is not None
        return run


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    """A world whose replicas end with the block."""
    made = World()
    try:
        yield made
    finally:
        await made.close()


def options(**given: Any) -> Options:
    """Resolve options."""
    return resolve(AskedOptions(**given))


def asking(
    message: str = "Say hello.",
    *,
    chat: str | None = None,
    new: bool | NewChat = True,
    run: str | None = None,
    key: RequestKey | None = None,
    **given: Any,
) -> Completion:
    """A message to be answered, in a new chat unless `chat` names one."""
    made = NewChat("", "be brief", "", 0) if new is True else (new or None)
    return Completion(
        chat_id=chat or uuid7(),
        run_id=run or uuid7(),
        message=message,
        options=options(**given),
        new_chat=None if chat and new is True else made,
        key=key,
    )


def model(**changes: Any) -> Model:
    """The model that the fake engine serves."""
    return replace(Model("sim", 1000, "sim", "1", "fake-tokenizer"), **changes)


def tokens_of(content: str) -> int:
    """What the fake tokenizer counts: words, and one for the template."""
    return 1 + len(content.split())


def deaths(writes: Sequence[str]) -> Iterator[tuple[str, Death]]:
    """Every way to die at one of the writes, with its name."""
    for number, name in enumerate(writes, 1):
        for after in (False, True):
            yield f"{'after' if after else 'before'} {name} ({number})", Death(number, after)


def refusal(error: ServiceError) -> str:
    """The code of a refusal."""
    return error.code


def finish_of(ended: Ended) -> FinishReason | None:
    """How an answer finished."""
    return ended.run.finish_reason
