"""The engine and the holder, killed and frozen, while vLLM answers with the small model.

With one engine (two small machines' worth of memory is not asked for) an answer whose
engine is gone waits for it to come back, and goes on from the tokens that it has.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from parley_devstack.environments import inference
from parley_devstack.models import is_there
from parley_devstack.paths import checkout
from support.fault_case import Case, Scale, try_case, warm_up
from support.fault_stack import FaultStack
from support.fault_table import Table
from support.faults import CONTINUED, TAKEN_OVER, freeze, freeze_alone, kill, restart_empty

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.faults,
    pytest.mark.timeout(1200),
    pytest.mark.asyncio(loop_scope="session"),
]
SCALE = Scale(
    streams=4,
    at_least=3,
    witnesses=1,
    short="Say hello.",
    long="Write a very long story about a lighthouse and its keeper, with many chapters.",
    max_tokens=160,
    recovery=300.0,
    turn=600.0,
)
CASES = [
    Case("kill -9", "inference (vLLM)", restart_empty("inference-1"), met_by=CONTINUED),
    Case("freeze", "inference (vLLM)", freeze_alone("inference-1"), met_by=CONTINUED),
    Case("kill -9", "session (vLLM)", kill("session-1"), disturbs=0),
    Case(
        "freeze",
        "session (vLLM)",
        freeze("session-1"),
        disturbs=0,
        met_by=TAKEN_OVER,
        fenced="session-1",
    ),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def vllm_platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FaultStack]:
    model = os.environ.get("PARLEY_TEST_MODEL", "")
    python = inference(checkout(), gpu=False).python
    if not python.exists() or not (model or is_there(checkout())):
        pytest.skip("needs the inference environment and the model: make setup")
    platform = FaultStack(
        tmp_path_factory.mktemp("vllm-faults"), engine="vllm", engines=1, model=model
    )
    try:
        await platform.start()
        await warm_up(platform, SCALE)
        yield platform
    finally:
        await platform.stop()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_survives_on_vllm(
    case: Case, vllm_platform: FaultStack, table: Table, tmp_path: Path
) -> None:
    try:
        await try_case(case, vllm_platform, table, tmp_path, SCALE)
    finally:
        await vllm_platform.mend()
