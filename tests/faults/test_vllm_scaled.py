"""A second vLLM joins while chats flow, and leaves again."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from parley_devstack.paths import checkout
from parley_devstack.stack import Stack
from support.crowd import Crowd, Patience
from support.evidence import collect
from support.ledger import Ledger, Reading
from support.stack import MakeStack
from support.verdict import Kind, judge
from support.vllm import small_model

pytestmark = [pytest.mark.vllm, pytest.mark.faults, pytest.mark.timeout(1500)]

CLIENTS, TURNS = 12, 4
TURN_SECONDS = 300.0
QUESTION = "Tell me about a town of your choice, its river, and who lives there."
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
GENERATED = "vllm:generation_tokens_total"


@dataclass(frozen=True, slots=True)
class Phase:
    """What was seen while so many engines served."""

    name: str
    seconds: float
    # Seconds from the question to the first text, of each answer.
    first: Sequence[float]
    tokens: Sequence[float]

    def row(self) -> str:
        """A row of the table."""
        cut = statistics.quantiles(self.first, n=20)
        speed = " + ".join(f"{tokens / self.seconds:.1f}" for tokens in self.tokens)
        return f"| {self.name} | {len(self.first)} | {cut[9]:.1f} | {cut[18]:.1f} | {speed} |"


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


async def phase(
    name: str, stack: Stack, ledger: Ledger, say: Callable[[], Awaitable[None]]
) -> Phase:
    """Watch the answers that begin while `say` lasts."""
    known, began, drawn = set(ledger.readings), ledger.now(), await generated(stack)
    await say()
    seconds = ledger.now() - began
    sent = {ask.run: ask.sent_at for ask in ledger.asks}
    seen = [r for key, r in ledger.readings.items() if key not in known and r.deltas]
    first = [reading.deltas[0].at - sent[reading.run] for reading in seen if own(reading)]
    after = await generated(stack)
    tokens = [new - old for new, old in zip(after, drawn, strict=True)]
    return Phase(name, seconds, first, tokens)


def own(reading: Reading) -> bool:
    """Whether it is of who asked, not of a second reader."""
    return "'" not in reading.reader


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

        async def turns(of: Crowd) -> None:
            for _ in range(TURNS):
                await of.say(QUESTION)

        async with crowd() as first, crowd() as second:
            await first.say(QUESTION)
            phases = [await phase("one engine", stack, ledger, lambda: turns(first))]
            adding = asyncio.create_task(stack.add("inference"))
            joined = 0
            while not adding.done():
                await first.say(QUESTION)
                joined += 1
            added = await adding
            assert joined, "nobody asked anything while it started"
            # Chats of its own, and those that were there before.
            await second.say(QUESTION)
            phases.append(await phase("two engines", stack, ledger, lambda: turns(second)))
            assert all(phases[-1].tokens), "an engine drew nothing"
            talking = asyncio.create_task(turns(second))
            await second.in_mid_answer(2)
            await stack.stop_one(added)
            await talking
            assert stack.exit_code(added) == 0
            phases.append(await phase("one again", stack, ledger, lambda: turns(first)))
            await first.repeat()
            await second.repeat()
        evidence = await collect(
            ledger,
            url=stack.url,
            mongodb_uri=stack.mongodb_uri,
            redis_url=stack.redis_url,
            database=stack.config.mongodb_database,
        )
    verdict = judge(ledger, evidence, log_ttl_seconds=900.0)
    write(phases, len(ledger.asks), verdict.count(*Kind))
    assert verdict.count(*Kind) == 0, f"\n{verdict}"


def write(phases: Sequence[Phase], answers: int, wrong: int) -> None:
    """Leave the figures in reports."""
    folder = checkout().root / "reports"
    folder.mkdir(exist_ok=True)
    head = "| engines | answers | TTFT p50, s | p95, s | tokens/s of each |"
    rows = [head, "|---|---:|---:|---:|---:|", *(each.row() for each in phases)]
    page = "\n".join(
        [f"# vLLM, 1 to 2 to 1: {answers} answers, {wrong} lost or wrong", "", *rows, ""]
    )
    (folder / "vllm_scaled.md").write_text(page, encoding="utf-8")
