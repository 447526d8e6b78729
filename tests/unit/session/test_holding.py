"""A hold is kept by its beat, whatever else hangs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from parley_session.runs.holding import Hold
from parley_session.runs.memory_log import MemoryRunLog
from parley_session.runs.signal import StopSignal
from parley_session.store.base import Store
from support.poll import until


@dataclass
class Beat:
    cancel_requested: bool = False


class BeatingStore:
    """Counts beats."""

    def __init__(self) -> None:
        self.beats = 0

    async def move_beat(self, run_id: str, attempt: int) -> Beat:
        self.beats += 1
        return Beat()


class HangingLog(MemoryRunLog):
    """Never answers a renewal."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def renew(self, stream: str) -> None:
        self.asked += 1
        await asyncio.Event().wait()


@dataclass
class HeldRun:
    id: str = "run"
    attempt: int = 1


async def test_a_log_that_hangs_does_not_hold_up_the_beat() -> None:
    store, log = BeatingStore(), HangingLog()
    hold = Hold(cast(Store, store), log, cast(Any, HeldRun()), "holder", lease=0.03)
    hold.stream = "run:1"
    async with hold.beating(StopSignal()):
        await until(lambda: log.asked == 1 and store.beats > 10)
