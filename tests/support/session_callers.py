"""Callers of a few session replicas in virtual time, and what they may be told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from parley_kit.errors import ServiceError
from parley_session.domain.model import Principal, WhenBusy
from parley_session.runs.asking import NewChat
from parley_session.runs.keys import RequestKey
from parley_session.runs.live import Ended, Piece
from parley_session.runs.memory_log import MemoryRunLog
from support.session_book import Asked, Book, KnownChat, Reader
from support.session_mortal import Killed
from support.session_stepped import Life, LoopClock, SteppedFleet
from support.session_world import Replica, World, asking
from support.virtual_time import VirtualLoop

# A call that ended so may have been taken all the same: it is sent again elsewhere.
UNKNOWN = frozenset({"unavailable", "store_unavailable"})
NO_CHAT = NewChat("", "be brief", "", 0)


class Callers:
    """The world, its replicas, the calls in progress, and the book of what was told."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.fleet = SteppedFleet()
        self.world = World(LoopClock(self.loop), self.fleet)
        self.world.log = MemoryRunLog(clock=self.loop.time)
        self.book = Book()
        self.replicas: list[Replica] = []
        # Calls in progress, each with the replica that serves it.
        self.calls: dict[asyncio.Task[None], Replica] = {}
        self.reading: dict[int, asyncio.Task[None]] = {}

    # replicas -------------------------------------------------------------------------

    def _start_replica(self) -> None:
        life = Life()
        life.awake.set()
        self.replicas.append(self.world.replica(life))

    def _replica(self, at: int) -> Replica:
        return self.replicas[at % len(self.replicas)]

    @staticmethod
    def _awake(replica: Replica) -> asyncio.Event:
        assert isinstance(replica.death, Life)
        return replica.death.awake

    def _bury(self) -> None:
        """Cut the connections of replicas that have died, and start others."""
        for replica in [replica for replica in self.replicas if replica.death.dead]:
            self.book.deaths += 1
            self.replicas.remove(replica)
            self._awake(replica).set()
            for call in [call for call, by in self.calls.items() if by is replica]:
                call.cancel()
            self.loop.run(replica.kill())
            self.loop.settle()
            self._start_replica()

    # calls ----------------------------------------------------------------------------

    def _call(self, at: int, call: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(call)
        self.calls[task] = self._replica(at)
        return task

    def _harvest(self) -> None:
        """Raise what a call has found to be wrong."""
        for task in [task for task in self.calls if task.done()]:
            del self.calls[task]
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _keyed(self) -> list[Asked]:
        return [asked for asked in self.book.asked if asked.key and asked.taken]

    def _ask(self, who: Principal, chat: str | None, keyed: bool) -> Asked:
        # Both users use the same keys.
        own = sum(asked.who is who for asked in self.book.asked)
        return self.book.ask(who, chat, f"key {own}" if keyed else "")

    def _send(self, asked: Asked, at: int, when_busy: WhenBusy = WhenBusy.REJECT) -> None:
        """Send a request, as a gateway does: with a key under new ids, else under the same."""
        number = f"{self.book.asked.index(asked)}-{len(asked.tries) if asked.key else 0}"
        ids = (asked.into or f"chat-{number}", f"run-{number}")
        if ids not in asked.tries:
            asked.tries.append(ids)
        asked.open += 1
        self._call(at, self._post(self._replica(at), asked, ids, when_busy))

    async def _post(
        self, replica: Replica, asked: Asked, ids: tuple[str, str], when_busy: WhenBusy
    ) -> None:
        chat, run = ids
        key = RequestKey(asked.key, asked.text) if asked.key else None
        question = asking(
            asked.text, chat=chat, new=not asked.into and NO_CHAT, run=run, key=key,
            when_busy=when_busy,
        )  # fmt: skip
        try:
            accepted = await replica.start(question, asked.who)
        except Killed:
            return
        except ServiceError as refusal:
            if refusal.code not in UNKNOWN:
                asked.open -= 1
                self._check_refusal(asked, refusal)
            return
        asked.open -= 1
        self.book.took(asked, accepted.run.chat, accepted.run.id)
        self._read(Reader(asked.who, accepted.run.id), self.replicas.index(replica))

    def _check_refusal(self, asked: Asked, refusal: ServiceError) -> None:
        """A refusal has its reason."""
        if refusal.code == "not_found":
            assert any(self.book.is_deleting(chat) for chat, _ in asked.tries), asked
        elif refusal.code == "run_in_progress":
            into = {chat for chat, _ in asked.tries}
            others = (other for other in self.book.asked if other is not asked)
            assert any(into & {chat for chat, _ in other.tries} for other in others), asked
        else:
            assert refusal.code in ("overloaded", "queue_full"), refusal

    async def _misuse(self, replica: Replica, asked: Asked) -> None:
        run = f"misuse-{self.book.now()}"
        question = asking(
            "Something else.", chat=asked.into or run, new=not asked.into and NO_CHAT, run=run,
            key=RequestKey(asked.key, "another body"),
        )  # fmt: skip
        try:
            await replica.start(question, asked.who)
        except Killed:
            return
        except ServiceError as refusal:
            code = refusal.code
        else:
            raise AssertionError(f"{asked.key} stands for two questions")
        deleted = code == "not_found" and self.book.is_deleting(asked.into or "")
        assert deleted or code == "idempotency_key_reused", code

    async def _create(
        self, replica: Replica, who: Principal, chat: str, key: RequestKey | None, told: set[str]
    ) -> None:
        try:
            made, _ = await replica.session.servicer._chats.create(who, chat, NO_CHAT, key)
        except Killed:
            return
        except ServiceError:
            if any(map(self.book.is_deleting, told)):
                return
            raise
        told.add(made.id)
        assert len(told) == 1, f"two chats under one key: {told}"
        self.book.chats.setdefault(made.id, KnownChat(who))

    async def _cancel(self, replica: Replica, reader: Reader, wait: float) -> None:
        canceller = replica.session.servicer._canceller
        try:
            await canceller.cancel(reader.who, reader.run, wait)
        except Killed:
            return
        except ServiceError as refusal:
            self._check_gone(reader, refusal)

    async def _delete(self, replica: Replica, chat_id: str, known: KnownChat) -> None:
        try:
            await replica.delete(chat_id, known.who)
        except Killed:
            return
        known.deleted = True

    # reading ---------------------------------------------------------------------------

    def _read(self, reader: Reader, at: int, lost: str = "") -> None:
        """Connect a reader, at the place where it is; it leaves where it was."""
        if reader not in self.book.readers:
            self.book.readers.append(reader)
        before = self.reading.get(id(reader))
        if before is not None:
            before.cancel()
        replica = self._replica(at)
        reader.replica, reader.connected = replica.session.servicer._replica, True
        self.book.hints += bool(lost)
        self.reading[id(reader)] = self._call(at, self._follow(replica, reader, lost, before))

    async def _follow(
        self,
        replica: Replica,
        reader: Reader,
        lost: str,
        before: asyncio.Task[None] | None,
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        deleted = self._is_deleted(reader)
        reader.connected = True
        try:
            async for event in replica.follow(
                reader.run, reader.position, principal=reader.who, lost_replica=lost
            ):
                assert not deleted, f"{reader} was served of a deleted chat"
                if isinstance(event, Piece):
                    reader.text += event.text
                    assert reader.position == event.end
                elif isinstance(event, Ended):
                    reader.told = event.run
        except Killed:
            return
        except ServiceError as refusal:
            if refusal.code not in UNKNOWN:
                self._check_gone(reader, refusal)
                reader.gone = True
        finally:
            reader.connected = False

    def _is_deleted(self, reader: Reader) -> bool:
        chat = next(a.taken[0] for a in self.book.asked if a.taken and a.taken[1] == reader.run)
        return self.book.chats[chat].deleted

    def _check_gone(self, reader: Reader, refusal: ServiceError) -> None:
        chat = next(a.taken[0] for a in self.book.asked if a.taken and a.taken[1] == reader.run)
        assert refusal.code == "not_found", refusal
        assert self.book.is_deleting(chat), f"{reader} was told of no such run"
