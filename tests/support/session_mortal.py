"""Replicas that can be killed at any write: a killed one reaches nothing any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

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


def deaths(writes: Sequence[str]) -> Iterator[tuple[str, Death]]:
    """Every way to die at one of the writes, with its name."""
    for number, name in enumerate(writes, 1):
        for after in (False, True):
            yield f"{'after' if after else 'before'} {name} ({number})", Death(number, after)
