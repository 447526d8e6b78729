"""The contract of the durable store.

Each method is one atomic operation on one document, or a read, or a repeatable
removal of many; the order in which callers use them is the run protocol (see
docs/architecture.md). Uniqueness is an index, never read-then-write. A write that
is conditional says so by its answer: `False` or `None` means that the condition
did not hold and nothing was changed.

Every method may raise `StoreUnavailable` (the server is away, or did not answer
within the store's own bound). A write that raised may have been applied: every
caller repeats it, or reads again.

Reads and writes on behalf of a caller take a `Principal`, and treat what belongs
to somebody else as absent. Methods for housekeeping take ids that an earlier read
found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol

from parley_session.domain.jobs import JobEnd, JobRecord
from parley_session.domain.model import (
    Chat,
    ChatListing,
    FrozenPrompt,
    IdempotencyRecord,
    Invalidation,
    Message,
    Outcome,
    Principal,
    Rating,
    Run,
    Summary,
    Turn,
)
from parley_session.domain.usage import ReportRow, UsageDay, UsageRecord, UserDay

# Turns that may wait in one chat, the one being made included.
MAX_PENDING = 8
# Messages that one call may read.
MAX_MESSAGES_READ = 1000
# Ids of a chat's runs that one call reads.
MAX_RUNS_READ = 1000
# Days of usage that one call sums.
MAX_USAGE_DAYS = 92


class StoreUnavailable(Exception):
    """The store is away or too slow; the operation may or may not have happened."""


@dataclass(frozen=True, slots=True)
class ListCursor:
    """The place after which a page of chats begins: latest update first, then id."""

    updated_at: datetime
    chat_id: str


@dataclass(frozen=True, slots=True)
class Beat:
    """What a holder learns when it moves its beat."""

    cancel_requested: bool


class Backlog(StrEnum):
    """What housekeeping has to do, and what tells that it is time."""

    EXPIRED_CHATS = "expiresAt"
    TOMBSTONES = "deletedAt"
    INVALIDATIONS = "createdAt"
    KEYS = "key expiresAt"
    UNREPORTED = "unreported"


class Store(Protocol):
    """Chats, messages, runs, invalidations, idempotency keys, usage and periodic jobs."""

    async def prepare(self) -> None:
        """Create the indexes; safe to repeat, and for many replicas at once."""

    async def ping(self) -> None:
        """Return when the store answers."""

    async def close(self) -> None:
        """Let go of the connections."""

    # chats ------------------------------------------------------------------

    async def insert_chat(self, chat: Chat) -> bool:
        """Insert a chat, with its first turn in `pending` if it has one.

        False: a chat (or tombstone) with this id exists.
        """

    async def get_chat(self, principal: Principal, chat_id: str) -> Chat | None:
        """Read a chat; a tombstone is returned as well (`deleted_at` set)."""

    async def accept_turn(self, principal: Principal, chat: Chat, turn: Turn, limit: int) -> bool:
        """Take `turn` into `chat.pending`: acceptance, one compare-and-set.

        Holds if the chat is not deleted, `nextSeq` is still `chat.next_seq`
        (`turn.seq`), and fewer than `limit` turns are in `chat.pending`: turns are added
        only together with `nextSeq`, so that since `chat` was read they can only have
        become fewer. `nextSeq` grows by 2, `updatedAt` becomes `turn.accepted_at`.
        """

    async def settle_turn(
        self,
        chat_id: str,
        run_id: str,
        *,
        messages: int,
        title: Callable[[str], str] | None,
        at: datetime,
        known: Chat | None = None,
    ) -> Chat | None:
        """Take the first pending turn off, if it is that of `run_id`; the chat as it then is.

        In the same write `messageCount` grows by `messages`, `updatedAt` becomes `at`,
        and where the chat has no title, `title` makes one of the turn's message. `known`:
        the chat as the caller believes it to be; if it is, it need not be read. None: the
        first turn is another's, or there is none.
        """

    async def list_chats(
        self, principal: Principal, limit: int, after: ListCursor | None
    ) -> Sequence[ChatListing]:
        """Read the user's chats that are neither deleted nor past their expiry.

        Latest update first, then the greater id; `limit` must be positive. ValueError if
        `principal` names nobody.
        """

    async def set_summary(self, chat_id: str, since: int, summary: Summary) -> bool:
        """Replace the summary of a chat that is not deleted, if it is still until `since`.

        0: the chat has none yet.
        """

    async def set_title(self, principal: Principal, chat_id: str, title: str) -> Chat | None:
        """Set the title of a chat that is not deleted; the chat as it then is."""

    async def mark_deleted(self, principal: Principal, chat_id: str, at: datetime) -> Chat | None:
        """Set `deletedAt` unless it is set; the chat as it then is, None if there is none."""

    async def strip_chat(self, chat_id: str) -> None:
        """Make a deleted chat a tombstone: what it said is removed, its ids stay.

        The pending turns stay too (their runs may yet have to be removed), without what
        the caller wrote into their options. A chat that is not deleted is left alone.
        """

    # messages ---------------------------------------------------------------

    async def insert_message(self, message: Message) -> bool:
        """Insert a message. False: it is there already."""

    async def get_messages(
        self, principal: Principal, chat_id: str, first_seq: int, last_seq: int
    ) -> Sequence[Message]:
        """Read messages by computed ids, oldest first; both bounds included.

        At most 1,000 a call (ValueError): callers page.
        """

    async def get_message(self, principal: Principal, message_id: str) -> Message | None:
        """Read one message by its id."""

    async def set_tokens(self, message_id: str, tokenizer_id: str, tokens: int) -> None:
        """Store how many tokens a message has under one tokenizer."""

    async def rate_message(self, principal: Principal, message_id: str, rating: Rating) -> bool:
        """Store a rating of an assistant's message; `flagged` is set by "down", cleared by "up"."""

    async def flag_message(self, tenant: str, message_id: str) -> None:
        """Flag the message that a cached answer was copied from."""

    async def delete_messages(self, chat_id: str, next_seq: int) -> None:
        """Remove all messages of a chat, by computed ids below `next_seq`."""

    # runs -------------------------------------------------------------------

    async def insert_run(self, run: Run) -> bool:
        """Insert a run, held or not. False: it is there already."""

    async def get_run(self, principal: Principal, run_id: str) -> Run | None:
        """Read a run."""

    async def hold_run(self, run_id: str, attempt: int, holder: str, faults: int = 0) -> Run | None:
        """Raise the attempt of an unfinished run from `attempt`; the run as it then is.

        Its state becomes `running`. `faults`: holders that it has lost so far.
        """

    async def move_beat(self, run_id: str, attempt: int) -> Beat | None:
        """Move the beat of a run that is held under `attempt`. None: it is not, stop."""

    async def hand_over(self, run_id: str, attempt: int) -> bool:
        """Say that the holder of `attempt` has stopped, naming the attempt."""

    async def start_run(
        self,
        run_id: str,
        attempt: int,
        log: str | None,
        at: datetime,
        prompt: FrozenPrompt | None = None,
    ) -> bool:
        """Set `log` and, unless the run has started, `startedAt` and its prompt.

        Names the attempt. `prompt` must be given where the run may not have started.
        """

    async def clear_log(self, run_id: str, attempt: int) -> bool:
        """Say that the run has no whole log, naming the attempt."""

    async def commit_run(self, run_id: str, attempt: int, outcome: Outcome) -> bool:
        """Write the last state of an unfinished run, naming the attempt: the commit."""

    async def request_cancel(self, principal: Principal, run_id: str) -> Run | None:
        """Raise the cancel flag of an unfinished run; the run as it then is, in any state."""

    async def list_run_ids(self, chat_id: str) -> Sequence[str]:
        """Read the ids of a chat's runs, at most `MAX_RUNS_READ`.

        A removal asks again until none is left. By an index on the chat: once its
        messages are gone, nothing else names them.
        """

    async def fence_runs(self, run_ids: Sequence[str]) -> Sequence[str]:
        """Raise the attempt of each run, so that no holder writes any more.

        Answers the names of the logs that these runs name, in no order.
        """

    async def delete_runs(self, run_ids: Sequence[str]) -> None:
        """Remove runs."""

    # invalidations ----------------------------------------------------------

    async def insert_invalidation(self, invalidation: Invalidation) -> bool:
        """Write an invalidation. False: it is there already."""

    async def list_invalidations(self, limit: int) -> Sequence[Invalidation]:
        """Read the oldest invalidations that are not confirmed."""

    async def confirm_invalidation(self, invalidation_id: str) -> None:
        """Remove an invalidation that the cache has confirmed."""

    # idempotency keys -------------------------------------------------------

    async def insert_key(self, record: IdempotencyRecord) -> bool:
        """Insert what a key stands for. False: the key has a record, perhaps an expired one."""

    async def get_key(self, key_id: str) -> IdempotencyRecord | None:
        """Read a key's record, also an expired one."""

    async def replace_key(self, expired: IdempotencyRecord, record: IdempotencyRecord) -> bool:
        """Put `record` in the place of `expired`, as it was read: one compare-and-set."""

    async def delete_expired_keys(self, before: datetime, limit: int) -> int:
        """Remove records that expired before `before`, at most `limit`; how many were removed."""

    # usage ------------------------------------------------------------------

    async def insert_usage(self, record: UsageRecord) -> bool:
        """Insert what a run or a chat has used, as not reported. False: it is there already."""

    async def sum_usage(self, principal: Principal, first: date, last: date) -> Sequence[UsageDay]:
        """Sum the user's records by day, both bounds included; days without any are left out.

        Earliest first. ValueError if `principal` names nobody, or for more than
        `MAX_USAGE_DAYS`.
        """

    async def list_unreported(self, before: date, limit: int) -> Sequence[UserDay]:
        """Read whose records of days before `before` are not in the report, earliest day first.

        As many as the first `limit` such records name.
        """

    async def mark_reporting(self, whose: UserDay, token: str) -> None:
        """Mark the records of a day that are not reported as being reported under `token`."""

    async def sum_models(self, whose: UserDay) -> Sequence[ReportRow]:
        """Sum all of a user's records of a day, reported or not, by model."""

    async def raise_report(self, row: ReportRow) -> None:
        """Raise the sums of the report's row to those of `row`, where they are less.

        The ledger only grows, so of two sums of the same records the greater is the later
        one: rows may be written in any order, and again.
        """

    async def settle_reporting(self, whose: UserDay, token: str) -> None:
        """Take the records that are still marked with `token` for reported."""

    async def list_report(
        self, first: date, last: date, tenant: str | None, after: ReportRow | None, limit: int
    ) -> Sequence[ReportRow]:
        """Read rows of the report after `after`, by day, tenant, user and model.

        Both days included; of one tenant, or of all.
        """

    # sweeping ---------------------------------------------------------------

    async def list_busy_chats(
        self, before: datetime, limit: int, now: datetime | None = None
    ) -> Sequence[Chat]:
        """Read chats whose first pending turn was accepted before `before`, oldest first.

        Also those whose turn was accepted after `now`, by a clock that has been set since.
        Deleted chats are left out: `list_tombstones` has them.
        """

    async def list_expired_chats(self, at: datetime, limit: int) -> Sequence[Chat]:
        """Read chats whose `expiresAt` has passed and that are not deleted."""

    async def list_tombstones(
        self, after: datetime, before: datetime, limit: int
    ) -> Sequence[Chat]:
        """Read chats deleted at or after `after` and before `before`, longest first."""

    async def remove_tombstone(self, chat_id: str) -> None:
        """Remove a deleted chat for good."""

    async def count_backlog(self, backlog: Backlog, before: datetime, most: int) -> int:
        """Count what the lists of housekeeping would give whose time is before `before`.

        No further than `most`. Of usage: what is not reported of days before that day.
        """

    # periodic jobs ----------------------------------------------------------

    async def get_job(self, name: str) -> JobRecord | None:
        """Read how a job stands that one replica does for all. None: nobody ever did it."""

    async def claim_job(self, name: str, attempt: int, holder: str) -> bool:
        """Raise the attempt of a job from `attempt` (0: it has none yet), and have it run.

        False: somebody else has claimed it since `attempt` was read.
        """

    async def end_job(self, name: str, attempt: int, end: JobEnd) -> bool:
        """Write how a run of a job ended, naming its attempt."""


def stripped(chat: Chat) -> Chat:
    """What `Store.strip_chat` leaves of a chat."""
    return replace(
        chat,
        title="",
        system="",
        summary=None,
        pending=tuple(_without_text(turn) for turn in chat.pending),
    )


def _without_text(turn: Turn) -> Turn:
    options = replace(turn.request.options, stop=(), json_schema="")
    return replace(turn, request=replace(turn.request, options=options))
