"""The faults of a worker, on a platform whose sessions have hardly any room themselves.

So nearly every answer waits in the queue, and is made by a worker that no client is
connected to; behind it another message waits in its chat.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.fault_case import SIM_SCALE, Case, try_case, warm_up
from support.fault_stack import SESSIONS, FaultStack
from support.fault_table import Table
from support.faults import WORKERS

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="session"),
]
ONE_RUN = {"PARLEY_SESSION_MAX_LIVE_RUNS": "1"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def working_platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FaultStack]:
    platform = FaultStack(
        tmp_path_factory.mktemp("worker-faults"),
        workers=2,
        settings={f"session-{number + 1}": ONE_RUN for number in range(SESSIONS)},
    )
    try:
        await platform.start()
        await warm_up(platform, SIM_SCALE)
        yield platform
    finally:
        await platform.stop()


@pytest.mark.parametrize("case", WORKERS, ids=lambda case: case.name)
async def test_survives(
    case: Case, working_platform: FaultStack, table: Table, case_folder: Path
) -> None:
    try:
        await try_case(case, working_platform, table, case_folder)
    finally:
        await working_platform.mend()
