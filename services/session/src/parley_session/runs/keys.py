"""Idempotency keys: with which ids a request goes on.

A key's record is inserted before acceptance, and after everything that a request can be
refused for what it is: such a refusal leaves no key. From then on every request with
that key goes on with the ids in the record, so that acceptance, which is one
compare-and-set under these ids, happens once. A refusal of acceptance leaves the record:
the same request may be tried again, and whoever else goes on with it is not cut off.

A key belongs to a user of a tenant: to `anonymous` where nobody is named for a new chat,
and to the chat's owner where a call acts as the owner. It is kept for a day; expiry is
checked on reading, and an expired record is replaced by compare-and-set.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from parley_session.clock import Clock
from parley_session.domain import errors
from parley_session.domain.model import IdempotencyRecord
from parley_session.store.base import Store

KEY_LIFE = timedelta(hours=24)
# Added before an expired record is removed: replicas' clocks differ. Together with the life
# it must be shorter than a tombstone's.
REAP_AFTER = timedelta(hours=1)
# Times that a claim looks again because somebody else replaced or removed the record.
MAX_TRIES = 8


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A request's key and the digest of its method, path and body."""

    text: str
    body_hash: str
    # The request does not wait for its answer.
    background: bool = False


class KeyTaken(Exception):
    """Another request with the key was first: go on with the ids in its record."""

    def __init__(self, record: IdempotencyRecord) -> None:
        super().__init__(record.id)
        self.record = record


class Keys:
    """Finds and claims keys. Raises StoreUnavailable."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def propose(
        self, tenant: str, user: str, key: RequestKey, *, chat: str, run: str
    ) -> IdempotencyRecord:
        """Make the record that a request would be the first with; `run` empty: none."""
        return IdempotencyRecord(
            id=key_id(tenant, user, key.text),
            body_hash=key.body_hash,
            chat=chat,
            run=run,
            background=key.background,
            expires_at=self._clock.now() + KEY_LIFE,
        )

    async def find(self, proposed: IdempotencyRecord) -> IdempotencyRecord | None:
        """Read what the key stands for already. Raises `idempotency_key_reused`."""
        kept = await self._store.get_key(proposed.id)
        return kept if kept is not None and self._stands(kept, proposed) else None

    async def claim(self, proposed: IdempotencyRecord) -> None:
        """Have the key stand for the ids of `proposed`; repeatable.

        Raises KeyTaken, `idempotency_key_reused`.
        """
        for _ in range(MAX_TRIES):
            if await self._store.insert_key(proposed):
                return
            kept = await self._store.get_key(proposed.id)
            if kept is None:
                continue
            if self._stands(kept, proposed):
                if (kept.chat, kept.run) == (proposed.chat, proposed.run):
                    return
                raise KeyTaken(kept)
            if await self._store.replace_key(kept, proposed):
                return
        raise errors.overloaded("too many requests use this idempotency key at once")

    def _stands(self, kept: IdempotencyRecord, proposed: IdempotencyRecord) -> bool:
        """Whether a record has not expired. Raises `idempotency_key_reused`."""
        if kept.expires_at <= self._clock.now():
            return False
        if kept.body_hash != proposed.body_hash:
            raise errors.idempotency_key_reused()
        return True


def key_id(tenant: str, user: str, key: str) -> str:
    """The id of a key's record. Lengths keep apart what only looks alike when joined."""
    digest = hashlib.sha256()
    for part in (tenant, user, key):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.hexdigest()


def reapable_before(clock: Clock) -> datetime:
    """Records that expired before then may be removed."""
    return clock.now() - REAP_AFTER
