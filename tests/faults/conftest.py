"""One platform for the whole suite, and the table of what was done to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from parley_devstack.paths import checkout
from support.fault_case import SIM_SCALE, warm_up
from support.fault_stack import FaultStack
from support.fault_table import Table

TABLE = pytest.StashKey[Table]()
# The page of a worker process, and what that calls it.
PAGE = pytest.StashKey[str]()
TOLD = "parley fault matrix"
REPORT = "fault_matrix.md"
VLLM_REPORT = "fault_matrix_vllm.md"


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Iterator[Table]:
    """The rows; printed, and written to reports, when all is over."""
    made = pytestconfig.stash.setdefault(TABLE, Table())
    yield made
    on_vllm = pytestconfig.getoption("markexpr") == "vllm"
    made.write(checkout().root / "reports" / (VLLM_REPORT if on_vllm else REPORT))


def _page(config: pytest.Config) -> str:
    """The table that this process has made, if it has any rows."""
    made = config.stash.get(TABLE, None)
    return made.markdown() if made is not None and made.rows else ""


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell it the controller, where this is a worker process of pytest-xdist."""
    told = getattr(session.config, "workeroutput", None)
    if told is not None:
        told[TOLD] = _page(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker process has told."""
    if page := getattr(node, "workeroutput", {}).get(TOLD):
        node.config.stash[PAGE] = page


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    if page := config.stash.get(PAGE, "") or _page(config):
        terminalreporter.section("fault matrix")
        terminalreporter.write_line(page)


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
