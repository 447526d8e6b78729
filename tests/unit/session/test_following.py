"""Readers of answers that are made elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from parley_session.runs import following
from parley_session.runs.log import BEGINNING, LogEntry, Place
from support.poll import until
from support.session_world import asking, world


async def test_a_reader_of_a_silent_answer_reads_nothing_of_its_log_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS_WITH_LOG", 0.02)
    async with world() as made:
        began: list[Place] = []
        handed_over: list[Place] = []
        follow = made.log.follow

        async def counted(stream: str, after: Place = BEGINNING) -> AsyncGenerator[LogEntry, None]:
            began.append(after)
            async for entry in follow(stream, after):
                handed_over.append(entry.place)
                yield entry

        made.log.follow = counted  # type: ignore[method-assign]
        made.fleet.hold_at = 2
        accepted = await made.replica().start(asking())
        await until(lambda: accepted.live is not None and accepted.live.length > 0)
        reading = asyncio.create_task(made.replica().read(accepted.run.id))
        await until(lambda: len(began) > 5)
        made.fleet.release.set()
        text, _ = await reading
    assert text == made.fleet.text
    assert len(handed_over) == len(set(handed_over))
    assert began[0] == BEGINNING
    assert began[-1] > began[0]
