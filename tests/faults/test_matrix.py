"""Every fault, on every part that it can befall, in the middle of at least 20 answers.

Nothing acknowledged is lost, nothing is made twice, all readers of an answer read the
same, and afterwards nothing is left. `make test-faults` runs all of it; the few cases
that say most are in the default run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fault_case import Case, try_case
from support.fault_stack import FaultStack
from support.fault_table import Table
from support.faults import FEW, MATRIX

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="session"),
]
CASES = [
    pytest.param(case, id=case.name, marks=() if case in FEW else pytest.mark.faults)
    for case in MATRIX
]


@pytest.mark.parametrize("case", CASES)
async def test_survives(case: Case, platform: FaultStack, table: Table, case_folder: Path) -> None:
    await try_case(case, platform, table, case_folder)
