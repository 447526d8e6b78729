"""Looks through a store for what must not be.

The store may be in use: what is found is looked at again after a moment, and told only if
it still is. A turn that has just been accepted is no fault; one that stays half done is for
the sweepers, and none of the invariants here speaks of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from parley_session.domain.model import Chat, Message, Run
from parley_session.operate.checking import Finding, check_chat
from parley_session.store.mongo.inspecting import PAGE, MongoInspector

# What belongs to a chat, by id.
PARTS = ("messages", "runs")


@dataclass(slots=True)
class Looked:
    """How much was looked at."""

    chats: int = 0
    tombstones: int = 0
    parts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))


class Verifier:
    """Reads a store through. `settle_seconds`: between the two looks at what was found."""

    def __init__(self, store: MongoInspector, settle_seconds: float) -> None:
        self._store = store
        self._settle = settle_seconds
        self.looked = Looked()

    async def findings(self, tenant: str | None = None) -> AsyncGenerator[Finding, None]:
        """Yield what is wrong; of one tenant's chats, or of everything.

        Parts without a chat are looked for in a whole store alone.
        """
        async for chat in self._store.every_chat(tenant):
            if chat.deleted_at is not None:
                self.looked.tombstones += 1
                continue
            self.looked.chats += 1
            for found in await self._standing(chat):
                yield found
        if tenant is None:
            for name in PARTS:
                async for found in self._orphans(name):
                    yield found

    async def _standing(self, chat: Chat) -> list[Finding]:
        first = await self._check(chat)
        if not first:
            return []
        await asyncio.sleep(self._settle)
        now = await self._store.find_chat(chat.id)
        if now is None or now.deleted_at is not None:
            return []
        again = await self._check(now)
        return [found for found in first if found in again]

    async def _check(self, chat: Chat) -> list[Finding]:
        messages: list[Message] = []
        for start in range(0, chat.next_seq, PAGE):
            seqs = range(start, min(start + PAGE, chat.next_seq))
            messages += await self._store.messages_of(chat.id, seqs)
        runs: list[Run] = []
        while page := await self._store.runs_of(chat.id, runs[-1].id if runs else ""):
            runs += page
        used: set[str] = set()
        for start in range(0, len(runs), PAGE):
            used |= await self._store.known("usage", [r.id for r in runs[start : start + PAGE]])
        return check_chat(chat, messages, runs, used)

    async def _orphans(self, name: str) -> AsyncGenerator[Finding, None]:
        """Yield the parts whose chat is not there: no reader and no sweeper finds them."""
        page: dict[str, str] = {}
        async for part, chat in self._store.owners(name):
            self.looked.parts[name] += 1
            page[part] = chat
            if len(page) == PAGE:
                for found in await self._lost(name, page):
                    yield found
                page = {}
        for found in await self._lost(name, page):
            yield found

    async def _lost(self, name: str, page: dict[str, str]) -> list[Finding]:
        chats = await self._store.known("chats", set(page.values()))
        lost = [part for part, chat in page.items() if chat not in chats]
        if lost:
            # A chat may have been deleted between the two reads.
            await asyncio.sleep(self._settle)
            lost = sorted(await self._store.known(name, lost))
        return [Finding(page[part], f"{name}_without_a_chat", part) for part in lost]
