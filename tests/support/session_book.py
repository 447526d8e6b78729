"""What the callers of a session service know, and what must follow from it.

A small model that is plainly right: callers send questions, are told that some were taken,
and read answers. From this alone, whatever the replicas do, it follows what may stand in
the store, and what must.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from parley_session.domain.model import Chat, FinishReason, Message, Principal, Role, Run, RunState
from parley_session.store.memory.store import MemoryStore


@dataclass(slots=True)
class Asked:
    """One request of a caller, however often it is sent. Its text is like no other's."""

    who: Principal
    text: str
    # None: it is to begin a chat.
    into: str | None
    key: str
    sent_at: int
    # The ids of every try: with a key each has its own, else all have the same.
    tries: list[tuple[str, str]] = field(default_factory=list)
    # Tries of which it is not known (yet) what became of them.
    open: int = 0
    # The chat and the run that it was told of.
    taken: tuple[str, str] | None = None
    taken_at: int | None = None


@dataclass(slots=True)
class KnownChat:
    """A chat of which a caller knows."""

    who: Principal
    # Somebody has asked for its deletion, and was told that it is deleted.
    deleting: bool = False
    deleted: bool = False


@dataclass(slots=True)
class Reader:
    """One reader of one answer, wherever it is connected."""

    who: Principal
    run: str
    text: str = ""
    # What it was told at the end.
    told: Run | None = None
    # The chat was deleted, or the run is not to be had.
    gone: bool = False
    connected: bool = False
    # The replica that it was connected to last.
    replica: str = ""

    @property
    def position(self) -> int:
        """Bytes that it has."""
        return len(self.text.encode())


class Book:
    """Everything that was asked, told and read."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.chats: dict[str, KnownChat] = {}
        self.readers: list[Reader] = []
        self.cancelled: set[str] = set()
        # Replicas that died, logs that were lost: they excuse certain ends.
        self.deaths = 0
        self.hints = 0
        self.log_losses = 0
        # How runs ended, as first seen.
        self._ended: dict[str, tuple[RunState, str]] = {}
        self._moments = itertools.count(1)

    def now(self) -> int:
        """A moment: later than all that were given before."""
        return next(self._moments)

    def ask(self, who: Principal, into: str | None, key: str) -> Asked:
        """A caller is about to ask something for the first time."""
        asked = Asked(who, f"Question {len(self.asked) + 1}", into, key, self.now())
        self.asked.append(asked)
        return asked

    def took(self, asked: Asked, chat: str, run: str) -> None:
        """A caller is told that its question was taken. The same one is the same run."""
        assert asked.taken in (None, (chat, run)), f"{asked.text} was taken twice: {asked}"
        if not asked.key:
            assert (chat, run) in asked.tries, f"other ids than were sent: {chat} {run}"
        if asked.taken is None:
            asked.taken, asked.taken_at = (chat, run), self.now()
        self.chats.setdefault(chat, KnownChat(asked.who))

    def is_deleting(self, chat_id: str) -> bool:
        """Whether somebody has asked for the deletion of a chat."""
        known = self.chats.get(chat_id)
        return known is not None and known.deleting

    # at any moment ----------------------------------------------------------------

    def check(self, store: MemoryStore) -> None:
        """What holds at every moment, whoever has died or sleeps."""
        for chat in store._chats.values():
            _check_chat(chat)
        questions = dict(self._questions(store))
        assert len(questions) == sum(
            message.role is Role.USER for message in store._messages.values()
        ), "a question is stored twice"
        for asked in self.asked:
            self._check_asked(asked, questions.get(asked.text), store)
        self._check_order(questions, store)
        for run in store._runs.values():
            self._check_run(run)
        self._check_answers(store)
        self._check_readers(store)

    def _questions(self, store: MemoryStore) -> Iterator[tuple[str, Message]]:
        texts = {asked.text for asked in self.asked}
        for message in store._messages.values():
            if message.role is Role.USER:
                assert message.content in texts, f"nobody asked {message.content}"
                yield message.content, message

    def _check_asked(self, asked: Asked, stored: Message | None, store: MemoryStore) -> None:
        """A question stands where it was said to; one that was refused stands nowhere."""
        if stored is not None:
            assert (stored.tenant, stored.user) == (asked.who.tenant, asked.who.user)
            assert (stored.chat, stored.run) in asked.tries, f"{asked.text}: {stored}"
        if asked.taken is None:
            if not asked.open:
                deleting = stored is not None and self.is_deleting(stored.chat)
                assert stored is None or deleting, f"{asked.text} was refused, and is stored"
            return
        chat, run = asked.taken
        if self.chats[chat].deleting:
            return
        assert stored is not None, f"{asked.text} was taken, and is not stored"
        assert (stored.chat, stored.run) == (chat, run)
        assert run in store._runs, f"{asked.text} was taken, and has no run"

    def _check_order(self, questions: dict[str, Message], store: MemoryStore) -> None:
        """What was asked after another question had been taken stands after it."""
        taken = [a for a in self.asked if a.taken_at is not None and a.text in questions]
        for before, after in itertools.permutations(taken, 2):
            assert before.taken is not None
            assert after.taken is not None
            if before.taken[0] == after.taken[0] and (before.taken_at or 0) < after.sent_at:
                assert questions[before.text].seq < questions[after.text].seq

    def _check_run(self, run: Run) -> None:
        """A run ends once, and for a reason."""
        if not run.state.final:
            return
        ended = (run.state, run.content)
        assert self._ended.setdefault(run.id, ended) == ended, f"{run.id} ended twice"
        if run.state is RunState.CANCELLED:
            assert run.id in self.cancelled, f"nobody cancelled {run.id}"
        if run.error is not None:
            excuses = {
                "log_lost": self.log_losses,
                "poisoned": max(0, self.deaths + self.hints - 2),
                "timed_out": (run.finished_at or run.created_at) >= run.deadline,
            }
            assert excuses.get(run.error.code), f"{run.id} failed without a reason: {run.error}"

    @staticmethod
    def _check_answers(store: MemoryStore) -> None:
        """An answer is what its run says, and there is one only once the run has ended."""
        for message in store._messages.values():
            run = store._runs.get(message.run)
            if message.role is Role.ASSISTANT and run is not None:
                assert run.state.final
                assert message.content == run.content
                assert message.seq == run.seq + 1

    def _check_readers(self, store: MemoryStore) -> None:
        """All readers of an answer read the same, and who is told the end finds it stored."""
        for run_id, readers in _by_run(self.readers):
            longest = max((reader.text for reader in readers), key=len)
            for reader in readers:
                assert longest.startswith(reader.text), f"readers of {run_id} differ: {readers}"
            run = store._runs.get(run_id)
            if run is None or not run.state.final:
                assert run is None or not any(r.told for r in readers), "told before the end"
                continue
            if run.error is None or run.error.code != "log_lost":
                assert run.content.startswith(longest), f"{longest!r} was read of {run}"
            for reader in readers:
                if reader.told is not None and run.error is None:
                    assert reader.text == reader.told.content == run.content
                if reader.told is not None:
                    self._check_in_place(run, store)

    def _check_in_place(self, run: Run, store: MemoryStore) -> None:
        chat = store._chats.get(run.chat)
        if chat is None or chat.deleted_at is not None:
            return
        # One that is cancelled behind others is settled when its turn comes.
        open_ = [turn.run for turn in chat.pending[: 1 if run.id in self.cancelled else None]]
        assert run.id not in open_, f"{run.id} is told to have ended, and its turn is open"
        assert f"{run.chat}-{run.seq + 1}" in store._messages

    # at the end -------------------------------------------------------------------

    def check_end(self, store: MemoryStore, pieces: int) -> None:
        """What holds once everything had the time to come to its end."""
        self.check(store)
        for chat in store._chats.values():
            if chat.deleted_at is not None:
                continue
            assert chat.pending == (), f"a turn is left: {chat}"
            messages = [store._messages.get(f"{chat.id}-{seq}") for seq in range(chat.next_seq)]
            assert all(messages), f"{chat.id} lacks a message: {messages}"
            assert chat.message_count == chat.next_seq
        for chat_id, known in self.chats.items():
            if known.deleted:
                self._check_deleted(chat_id, store)
        for run in store._runs.values():
            assert run.state.final, f"{run.id} has no end"
            assert run.id in store._usage, f"{run.id} is not counted"
            if run.state is RunState.COMPLETED:
                assert run.finish_reason is FinishReason.STOP
                assert run.usage.completion_tokens == pieces, run

    @staticmethod
    def _check_deleted(chat_id: str, store: MemoryStore) -> None:
        chat = store._chats.get(chat_id)
        assert chat is None or (chat.deleted_at is not None and not chat.title)
        left = [m for m in store._messages.values() if m.chat == chat_id]
        assert not left, f"{chat_id} was deleted and has {left}"
        assert not [run for run in store._runs.values() if run.chat == chat_id]


def _check_chat(chat: Chat) -> None:
    seqs = [turn.seq for turn in chat.pending]
    assert seqs == sorted(set(seqs))
    assert all(seq % 2 == 0 and seq < chat.next_seq for seq in seqs)
    assert chat.next_seq - chat.message_count == 2 * len(chat.pending) or chat.deleted_at


def _by_run(readers: Iterable[Reader]) -> Iterator[tuple[str, list[Reader]]]:
    found: dict[str, list[Reader]] = {}
    for reader in readers:
        found.setdefault(reader.run, []).append(reader)
    yield from found.items()
