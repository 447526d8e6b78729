"""The names of everything the cache keeps in Redis.

All keys of a tenant share a hash tag, so that transactions over them work on a
Redis cluster (a tenant lives on one slot; tenants spread over all). `E` is the
tenant's epoch, drawn anew when all of it is invalidated: what an older epoch
left behind is out of reach at once, and its memory is given back by sweeping.

    P:{T}:meta      hash    epoch, seq, renew; b:<barrier>; old:<E>
    P:{T}:E:e:<id>  string  the record, until it expires
    P:{T}:E:x:<id>  string  its bookkeeping, for a while longer
    P:{T}:E:v:<id>  string  its question, vector and space, as long as the record
    P:{T}:E:exp     zset    id -> expiry, milliseconds
    P:{T}:E:worth   zset    id -> worth: see `worth`
    P:{T}:E:tot     string  bytes
    P:{T}:E:c|m|u|o:<name>  set of ids by chat, message, user, model
    P:{T}:lease:<id>  string  token of the one who makes an answer, or "-"
    P:{T}:said:<s>  hash    token -> expiry and question of who makes an answer in a space
    P:{T}:asked:<id>  set   users who asked a question of global scope
    P:{T}:flag:<u>  string  a user whose answers are not shared
    P:{T}:bar:<s>   list    vectors of what was rated down in a space
    P:tenants       hash    T -> "bytes:entries" at the last change
    P:total         hash    of all tenants, at the last sweep
    P:sweeper       string  held by the replica that sweeps
"""

from __future__ import annotations

from dataclasses import dataclass

from parley_cache.barriers import Barrier
from parley_cache.keys import SourceNames


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """What removing an entry needs to know of it."""

    size: int
    names: SourceNames
    space: str = ""
    """Where the index has it; empty: nowhere."""

    def encode(self) -> str:
        """Write it as Redis keeps it."""
        names = self.names
        sources = f"{names.chat}:{names.message}:{names.user}:{names.model}"
        return f"{self.size}:{sources}:{self.space}"

    @staticmethod
    def decode(raw: bytes | None) -> Bookkeeping | None:
        """Read it back; None when it is gone or not ours."""
        parts = raw.decode("ascii", "replace").split(":") if raw is not None else []
        if len(parts) != 6 or not parts[0].isdigit():
            return None
        return Bookkeeping(int(parts[0]), SourceNames(*parts[1:5]), parts[5])


@dataclass(frozen=True, slots=True)
class TenantKeys:
    """Names of one tenant's keys."""

    prefix: str
    tenant: str

    @property
    def meta(self) -> str:
        """The tenant's epoch, count and barriers."""
        return f"{self.prefix}:{{{self.tenant}}}:meta"

    def lease(self, entry_id: str) -> str:
        """Token of the one who makes an answer."""
        return f"{self.prefix}:{{{self.tenant}}}:lease:{entry_id}"

    def announced(self, space: str) -> str:
        """Questions that are being answered in a space."""
        return f"{self.prefix}:{{{self.tenant}}}:said:{space}"

    def askers(self, entry_id: str) -> str:
        """Users who asked a question of global scope."""
        return f"{self.prefix}:{{{self.tenant}}}:asked:{entry_id}"

    def flag(self, user: str) -> str:
        """Stands while a user's answers are not shared."""
        return f"{self.prefix}:{{{self.tenant}}}:flag:{user}"

    def bars(self, space: str) -> str:
        """Vectors of what was rated down in a space."""
        return f"{self.prefix}:{{{self.tenant}}}:bar:{space}"

    def epoch(self, epoch: str) -> EpochKeys:
        """Names within an epoch."""
        return EpochKeys(f"{self.prefix}:{{{self.tenant}}}:{epoch}", self.tenant)


@dataclass(frozen=True, slots=True)
class EpochKeys:
    """Names of one tenant's keys within an epoch."""

    base: str
    tenant: str

    @property
    def worth(self) -> str:
        """Ids by worth."""
        return f"{self.base}:worth"

    @property
    def expiry(self) -> str:
        """Ids by expiry."""
        return f"{self.base}:exp"

    @property
    def total(self) -> str:
        """Bytes held."""
        return f"{self.base}:tot"

    def record(self, entry_id: str) -> str:
        """An entry's record."""
        return f"{self.base}:e:{entry_id}"

    def meaning(self, entry_id: str) -> str:
        """What the semantic tier keeps of an entry."""
        return f"{self.base}:v:{entry_id}"

    def bookkeeping(self, entry_id: str) -> str:
        """An entry's bookkeeping."""
        return f"{self.base}:x:{entry_id}"

    def chat(self, name: str) -> str:
        """Ids by source chat."""
        return f"{self.base}:c:{name}"

    def message(self, name: str) -> str:
        """Ids by source message."""
        return f"{self.base}:m:{name}"

    def user(self, name: str) -> str:
        """Ids by the user whose question made them."""
        return f"{self.base}:u:{name}"

    def model(self, name: str) -> str:
        """Ids by model."""
        return f"{self.base}:o:{name}"

    def indices(self, names: SourceNames) -> tuple[str, str, str, str]:
        """The sets that an entry is a member of."""
        return (
            self.chat(names.chat),
            self.message(names.message),
            self.user(names.user),
            self.model(names.model),
        )


def barrier_field(name: str) -> str:
    """Field of `meta` that holds a barrier."""
    return f"b:{name}"


def old_epoch_field(epoch: str) -> str:
    """Field of `meta` that says an epoch's memory is still to be given back."""
    return f"old:{epoch}"


def encode_barrier(barrier: Barrier) -> str:
    """Write a barrier: absolute, sequence, expiry in milliseconds."""
    return f"{int(barrier.absolute)}:{barrier.sequence}:{int(barrier.expires_at * 1000)}"


def decode_barrier(raw: bytes) -> Barrier:
    """Read a barrier back; one that cannot be read stands and refuses all."""
    try:
        absolute, sequence, expires = raw.decode("ascii").split(":")
        return Barrier(absolute == "1", int(sequence), int(expires) / 1000)
    except ValueError:
        return Barrier(absolute=True, sequence=0, expires_at=float("inf"))
