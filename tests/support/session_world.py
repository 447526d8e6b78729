"""A world of session replicas over one store and one log, with engines and cache made up.

Replicas share `MemoryStore` and `MemoryRunLog`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from parley_kit.errors import ServiceError
from parley_kit.ids import uuid7
from parley_session.bootstrap import Outside, Session, build
from parley_session.clock import Clock
from parley_session.config import SessionSettings
from parley_session.domain.model import (
    Chat,
    FinishReason,
    Message,
    Options,
    Principal,
    Run,
)
from parley_session.domain.options import AskedOptions, resolve
from parley_session.queue.base import QueueLimits
from parley_session.queue.memory import MemoryRunQueue
from parley_session.runs.asking import Completion, NewChat
from parley_session.runs.keys import RequestKey
from parley_session.runs.live import Ended, Piece, Queued
from parley_session.runs.memory_log import MemoryRunLog
from parley_session.store.memory.store import MemoryStore
from support.poll import until
from support.session_fakes import FakeCache, FakeFleet
from support.session_mortal import LOG_WRITES, QUEUE_WRITES, STORE_WRITES, Death, Mortal

ALICE = Principal("acme", "alice")
BOB = Principal("acme", "bob")
LEASE = 15.0
SETTINGS = SessionSettings(
    mongodb_uri="mongodb://nowhere",  # type: ignore[arg-type]
    log_redis_url="redis://nowhere",  # type: ignore[arg-type]
    inference_targets="nowhere:1",
    lease_seconds=LEASE,
)


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


def refusal(error: ServiceError) -> str:
    """The code of a refusal."""
    return error.code


def finish_of(ended: Ended) -> FinishReason | None:
    """How an answer finished."""
    return ended.run.finish_reason
