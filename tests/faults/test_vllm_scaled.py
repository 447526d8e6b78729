"""A second vLLM joins while chats flow, and leaves again."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from parley_devstack.paths import checkout
from parley_devstack.stack import Stack
from support.crowd import Crowd, Patience
from support.evidence import collect
from support.ledger import Ledger
from support.phases import GENERATED, one_two_one, write
from support.stack import MakeStack
from support.verdict import Kind, judge
from support.vllm import small_model

pytestmark = [pytest.mark.vllm, pytest.mark.faults, pytest.mark.timeout(1500)]

CLIENTS = 12
TURN_SECONDS = 300.0
# More clients than an engine batches, so that answers wait for one; a core for each engine.
SETTINGS = {
    "inference": {
        "PARLEY_INFERENCE_MAX_NUM_SEQS": "4",
        "PARLEY_INFERENCE_MAX_MODEL_LEN": "2048",
    },
    "inference-1": {"PARLEY_INFERENCE_CPU_THREADS": "0"},
    "inference-2": {"PARLEY_INFERENCE_CPU_THREADS": "1"},
    "session": {"PARLEY_SESSION_SWEEP_SECONDS": "0.5"},
}


async def generated(stack: Stack) -> list[float]:
    """Tokens that each engine has drawn."""
    counts = []
    async with httpx.AsyncClient(timeout=10) as http:
        for name in stack.names_of("inference"):
            if stack.pid(name) is None:
                continue
            text = (await http.get(f"http://{stack.plan(name).admin}/metrics")).text
            lines = [line for line in text.splitlines() if line.startswith(GENERATED)]
            counts.append(sum(float(line.rpartition(" ")[2]) for line in lines))
    return counts


async def test_a_second_engine_joins_while_chats_flow_and_leaves_again(
    make_stack: MakeStack, tmp_path: Path
) -> None:
    stack = await make_stack(
        engine="vllm",
        model=str(small_model()),
        spare={"inference": 1},
        sessions=2,
        env=SETTINGS,
        start_seconds=600.0,
        stop_seconds=60.0,
    )
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        options = {"maxTokens": 24, "timeoutSeconds": round(TURN_SECONDS), "cache": "bypass"}
        patience = Patience(silence=60.0, turn=TURN_SECONDS)

        def crowd() -> Crowd:
            return Crowd(stack.urls, ledger, size=CLIENTS, patience=patience, options=options)

        async def drawn() -> list[float]:
            return await generated(stack)

        added: list[str] = []

        async def join() -> None:
            added.append(await stack.add("inference"))

        async def leave() -> None:
            await stack.stop_one(added[0])
            assert stack.exit_code(added[0]) == 0

        phases = await one_two_one(ledger, crowd, drawn, join, leave)
        evidence = await collect(
            ledger,
            url=stack.url,
            mongodb_uri=stack.mongodb_uri,
            redis_url=stack.redis_url,
            database=stack.config.mongodb_database,
        )
    verdict = judge(ledger, evidence, log_ttl_seconds=900.0)
    wrong = verdict.count(*Kind)
    title = f"vLLM, 1 to 2 to 1: {len(ledger.asks)} answers, {wrong} lost or wrong"
    write(checkout().root / "reports" / "vllm_scaled.md", title, phases)
    assert wrong == 0, f"\n{verdict}"
