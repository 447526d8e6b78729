"""Engines and a cache made up, for replicas in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from parley.inference.v1 import inference_pb2 as pb

from parley_session.answers.base import Answer, Hit, Miss, Query, nobody_told
from parley_session.domain import errors
from parley_session.domain.model import CacheStatus, Invalidation
from parley_session.fleet.base import Draw, Model, TokenCounts
from parley_session.fleet.policy import EnginePolicy


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

    def has_own(self, name: str, tenant: str) -> bool:
        found = self.served.get(name)
        return found is not None and not found.external and self.policy.allows(tenant, found)

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

    async def lookup(self, query: Query, waits: Callable[[], None] = nobody_told) -> Hit | Miss:
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


def model(**changes: Any) -> Model:
    """The model that the fake engine serves."""
    return replace(Model("sim", 1000, "sim", "1", "fake-tokenizer"), **changes)


def tokens_of(content: str) -> int:
    """What the fake tokenizer counts: words, and one for the template."""
    return 1 + len(content.split())
