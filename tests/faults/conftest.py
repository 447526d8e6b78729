"""One platform for the whole suite, and the table of what was done to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from parley_devstack.paths import checkout
from support.fault_case import SIM_SCALE, warm_up
from support.fault_stack import FaultStack
from support.fault_table import Table

TABLE = pytest.StashKey[Table]()
REPORT = "fault_matrix.md"
VLLM_REPORT = "fault_matrix_vllm.md"


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Iterator[Table]:
    """The rows; printed, and written to reports, when all is over."""
    made = pytestconfig.stash.setdefault(TABLE, Table())
    yield made
    on_vllm = pytestconfig.getoption("markexpr") == "vllm"
    made.write(checkout().root / "reports" / (VLLM_REPORT if on_vllm else REPORT))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    made = config.stash.get(TABLE, None)
    if made is not None and made.rows:
        terminalreporter.section("fault matrix")
        terminalreporter.write_line(made.markdown())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hurt_stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FaultStack]:
    """The platform, warmed by a first crowd: pools are filled, and what is held is known."""
    platform = FaultStack(tmp_path_factory.mktemp("faults"))
    try:
        await platform.start()
        await warm_up(platform, SIM_SCALE)
        yield platform
    finally:
        await platform.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def platform(hurt_stack: FaultStack) -> AsyncIterator[FaultStack]:
    """The platform whole, and whole again afterwards."""
    yield hurt_stack
    await hurt_stack.mend()


@pytest.fixture
def case_folder(tmp_path: Path) -> Path:
    """Where a case leaves its ledger."""
    return tmp_path
