"""A state machine over the session API: callers, replicas that die or sleep, and time.

Every rule lets something begin; then all happens that can happen at that moment, in
virtual time, and `Book` is asked whether it may have. A store or log operation of a
replica is a place where others come in between, where it can fall asleep, and where it can
die. At the end all wakes up, and everything has to come to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parley_session.domain.model import Principal, WhenBusy
from parley_session.jobs.housekeeping import CLEANED_AT_AGES
from parley_session.queue.base import QueueLimits
from parley_session.runs.keys import KEY_LIFE, REAP_AFTER, RequestKey
from support.session_book import Reader
from support.session_callers import Callers
from support.session_mortal import Killed
from support.session_stepped import PIECES
from support.session_world import ALICE, BOB, LEASE, SETTINGS

REPLICAS = 2

nth = st.integers(0, 7)
which_replica = st.integers(0, REPLICAS - 1)
users = st.sampled_from((ALICE, BOB))
busy = st.sampled_from(WhenBusy)


class SessionMachine(Callers, RuleBasedStateMachine):
    """Callers of a few replicas that fail."""

    def __init__(self) -> None:
        super().__init__()
        # Nothing has been found to be wrong so far.
        self.sound = True
        self.prepare()
        for _ in range(REPLICAS):
            self._start_replica()

    def prepare(self) -> None:
        """What a machine with a planted defect overrides."""

    # callers ------------------------------------------------------------------------

    @rule(who=users, at=which_replica, keyed=st.booleans(), twice=st.booleans())
    def create(self, who: Principal, at: int, keyed: bool, twice: bool) -> None:
        """Make an empty chat; `twice`: with the same request, at the same instant."""
        number = self.book.now()
        key = RequestKey(f"create {number}", "body") if keyed else None
        told: set[str] = set()
        for n in range(1 + twice):
            chat = f"empty-{number}-{n if keyed else 0}"
            self._call(at + n, self._create(self._replica(at + n), who, chat, key, told))
        self.loop.settle()

    @rule(who=users, at=which_replica, keyed=st.booleans())
    def ask_in_a_new_chat(self, who: Principal, at: int, keyed: bool) -> None:
        """Begin a chat with a question."""
        self._send(self._ask(who, None, keyed), at)
        self.loop.settle()

    @precondition(lambda self: self.book.chats)
    @rule(chat=nth, at=which_replica, keyed=st.booleans(), when_busy=busy)
    def ask(self, chat: int, at: int, keyed: bool, when_busy: WhenBusy) -> None:
        """Ask something in a chat."""
        chat_id, known = _pick(list(self.book.chats.items()), chat)
        self._send(self._ask(known.who, chat_id, keyed), at, when_busy)
        self.loop.settle()

    @precondition(lambda self: self.book.chats)
    @rule(chat=nth, at=which_replica, when_busy=busy)
    def ask_twice_at_once(self, chat: int, at: int, when_busy: WhenBusy) -> None:
        """Send the same request to two replicas at the same instant."""
        chat_id, known = _pick(list(self.book.chats.items()), chat)
        asked = self._ask(known.who, chat_id, keyed=True)
        self._send(asked, at, when_busy)
        self._send(asked, at + 1, when_busy)
        self.loop.settle()

    @precondition(lambda self: self.book.asked)
    @rule(number=nth, at=which_replica)
    def ask_again(self, number: int, at: int) -> None:
        """Repeat a request, whatever became of it."""
        self._send(_pick(self.book.asked, number), at)
        self.loop.settle()

    @precondition(lambda self: self._keyed())
    @rule(number=nth, at=which_replica)
    def misuse_a_key(self, number: int, at: int) -> None:
        """Send something else under a key that stands for a question."""
        asked = _pick(self._keyed(), number)
        self._call(at, self._misuse(self._replica(at), asked))
        self.loop.settle()

    @precondition(lambda self: self.book.readers)
    @rule(number=nth, at=which_replica, wait=st.sampled_from((0.0, 2.0)))
    def cancel(self, number: int, at: int, wait: float) -> None:
        """Cancel a run."""
        reader = _pick(self.book.readers, number)
        self.book.cancelled.add(reader.run)
        self._call(at, self._cancel(self._replica(at), reader, wait))
        self.loop.settle()

    @precondition(lambda self: self.book.chats)
    @rule(chat=nth, at=which_replica)
    def delete(self, chat: int, at: int) -> None:
        """Delete a chat."""
        chat_id, known = _pick(list(self.book.chats.items()), chat)
        known.deleting = True
        self._call(at, self._delete(self._replica(at), chat_id, known))
        self.loop.settle()

    @precondition(lambda self: self.book.readers)
    @rule(number=nth, at=which_replica)
    def attach(self, number: int, at: int) -> None:
        """Read an answer from its beginning."""
        known = _pick(self.book.readers, number)
        self._read(Reader(known.who, known.run), at)
        self.loop.settle()

    @precondition(lambda self: self.book.readers)
    @rule(number=nth, at=which_replica, hint=st.booleans())
    def resume(self, number: int, at: int, hint: bool) -> None:
        """Leave an answer, and read on elsewhere; `hint`: the connection was lost."""
        reader = _pick(self.book.readers, number)
        if reader.told is None and not reader.gone:
            self._read(reader, at, reader.replica if hint else "")
        self.loop.settle()

    # what befalls the replicas --------------------------------------------------------

    @rule(at=which_replica, writes=st.integers(1, 30), after=st.booleans())
    def doom(self, at: int, writes: int, after: bool) -> None:
        """Have a replica die at one of its next writes, before or after it is applied."""
        death = self._replica(at).death
        death.at, death.after = len(death.writes) + writes, after

    @rule(at=which_replica)
    def kill(self, at: int) -> None:
        """Have a replica die now."""
        self._replica(at).death.dead = True

    @rule(at=which_replica)
    def put_to_sleep(self, at: int) -> None:
        """Stop a replica; it knows nothing of it when it wakes up."""
        self._awake(self._replica(at)).clear()

    @rule(at=which_replica, pieces=st.integers(0, 2))
    def sleep_past_the_lease(self, at: int, pieces: int) -> None:
        """Stop a replica for so long that another one takes its runs over, and goes on."""
        self._awake(self._replica(at + 1)).set()
        self._awake(self._replica(at)).clear()
        for _ in range(2):
            self.advance(LEASE + 1)
            self.sweep(at + 1)
        self.speak(pieces)

    @rule()
    def wake_up(self) -> None:
        """Let all replicas go on."""
        for replica in self.replicas:
            self._awake(replica).set()
        self.loop.settle()

    @rule(at=which_replica)
    def sweep(self, at: int) -> None:
        """Have a replica sweep, and take what waits."""
        self._call(at, _until_killed(self._replica(at).sweep()))
        self.loop.settle()

    # everything else ------------------------------------------------------------------

    @rule(pieces=st.integers(1, PIECES))
    def speak(self, pieces: int) -> None:
        """Let all answers come on."""
        self.fleet.speak(pieces)
        self.loop.settle()

    @rule(full=st.sampled_from((False, False, False, True)))
    def fill_the_fleet(self, full: bool) -> None:
        """Leave no room for another run, or plenty."""
        self.fleet.full = full

    @rule(seconds=st.sampled_from((0.5, 6.0, LEASE + 1, 45.0)))
    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run(asyncio.sleep(seconds))

    @rule()
    def lose_the_log(self) -> None:
        """Restart the log's server empty."""
        self.book.log_losses += 1
        self.world.log.wipe()
        self.loop.settle()

    @invariant()
    def as_promised(self) -> None:
        """Ask the book, and replace the dead."""
        self.sound = False
        self._bury()
        self._harvest()
        self.book.check(self.world.store)
        self.sound = True

    def teardown(self) -> None:
        """Let everything come to its end, and see that nothing is left."""
        try:
            if self.sound:
                self._come_to_an_end()
        finally:
            self.loop.end()

    # the end --------------------------------------------------------------------------

    def _come_to_an_end(self) -> None:
        self.as_promised()
        self.fleet.full = False
        self.world.queue.limits = QueueLimits()
        self.fleet.unbind()
        for replica in self.replicas:
            # Nobody dies any more, and all wake up.
            replica.death.at = 0
            self._awake(replica).set()
        self._start_replica()
        for reader in self.book.readers:
            if not reader.connected and reader.told is None and not reader.gone:
                self._read(reader, REPLICAS)
        for _ in range(4):
            self._pass(LEASE + 1)
        self.as_promised()
        self.book.check_end(self.world.store, PIECES)
        for reader in self.book.readers:
            assert reader.told is not None or reader.gone, (
                f"a reader without a last event: {reader}"
            )
        assert not self.calls, f"calls without an answer: {self.calls}"
        assert not asyncio.all_tasks(self.loop), asyncio.all_tasks(self.loop)
        assert not any(len(replica.session.live_runs) for replica in self.replicas)
        assert len(self.world.queue) == 0, "queue entries are left"
        assert self.fleet.drawing == 0
        self._age()
        store = self.world.store
        gone = {chat_id for chat_id, known in self.book.chats.items() if known.deleted}
        assert not gone & store._chats.keys(), "tombstones are left"
        assert not store._keys, "keys are left"
        assert not store._invalidations, "invalidations are left"
        assert not self.world.log._streams, "logs are left"
        assert not any(a.source_chat in gone for a in self.world.cache.entries.values())

    def _age(self) -> None:
        """Let days pass, with the sweeper coming by when it has something to do."""
        now = self.loop.time()
        ages = [*CLEANED_AT_AGES, SETTINGS.tombstone_seconds]
        deleted = [
            (chat.deleted_at - self.world.time.now()).total_seconds() + now
            for chat in self.world.store._chats.values()
            if chat.deleted_at is not None
        ]
        due = {round(at + age + 1, 3) for at in deleted for age in ages}
        due.add(now + (KEY_LIFE + REAP_AFTER).total_seconds() + 1)
        for at in sorted(due):
            self._pass(max(0.0, at - self.loop.time()))
        self.world.log.sweep()

    def _pass(self, seconds: float) -> None:
        self.loop.run(asyncio.sleep(seconds))
        for replica in self.replicas:
            self.loop.run(replica.sweep())
        self.loop.settle()


async def _until_killed(call: Coroutine[Any, Any, None]) -> None:
    try:
        await call
    except Killed:
        return


def _pick(among: list[Any], number: int) -> Any:
    """The newest are counted first: they are the likelier to be in progress."""
    return among[-1 - number % len(among)]
