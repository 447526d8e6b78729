"""What clients see while so many engines serve: the time to a first text, what each draws."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.crowd import Crowd
from support.ledger import Ledger, Reading

# vLLM's own count of tokens.
GENERATED = "vllm:generation_tokens_total"
QUESTION = "Tell me about a town of your choice, its river, and who lives there."
TURNS = 4
HEAD = "| engines | answers | TTFT p50, s | p95, s | tokens/s of each |"


@dataclass(frozen=True, slots=True)
class Phase:
    """What was seen while so many engines served."""

    name: str
    seconds: float
    # Seconds from the question to the first text, of each answer.
    first: Sequence[float]
    # Drawn by each engine.
    tokens: Sequence[float]

    def row(self) -> str:
        """A row of the table."""
        cut = statistics.quantiles(self.first, n=20)
        speed = " + ".join(f"{tokens / self.seconds:.1f}" for tokens in self.tokens)
        return f"| {self.name} | {len(self.first)} | {cut[9]:.1f} | {cut[18]:.1f} | {speed} |"


async def phase(
    name: str,
    ledger: Ledger,
    drawn: Callable[[], Awaitable[Sequence[float]]],
    say: Callable[[], Awaitable[None]],
) -> Phase:
    """Watch the answers that begin while `say` lasts. `drawn`: tokens of each engine so far."""
    known, began, before = set(ledger.readings), ledger.now(), await drawn()
    await say()
    seconds = ledger.now() - began
    sent = {ask.run: ask.sent_at for ask in ledger.asks}
    seen = [r for key, r in ledger.readings.items() if key not in known and r.deltas]
    first = [reading.deltas[0].at - sent[reading.run] for reading in seen if _own(reading)]
    after = await drawn()
    tokens = [new - old for new, old in zip(after, before, strict=True)]
    return Phase(name, seconds, first, tokens)


async def one_two_one(
    ledger: Ledger,
    crowd: Callable[[], Crowd],
    drawn: Callable[[], Awaitable[Sequence[float]]],
    join: Callable[[], Coroutine[Any, Any, None]],
    leave: Callable[[], Awaitable[None]],
) -> list[Phase]:
    """Have clients chat with one engine, with two, and with one again, and in between.

    `join` ends when the second engine serves, `leave` when one of them is gone: it is called in
    mid-answer. Everything that was sent is sent again at the end, under its key.
    """

    async def turns(of: Crowd) -> None:
        for _ in range(TURNS):
            await of.say(QUESTION)

    async with crowd() as first, crowd() as second:
        await first.say(QUESTION)
        phases = [await phase("one engine", ledger, drawn, lambda: turns(first))]
        joining = asyncio.create_task(join())
        joined = 0
        while not joining.done():
            await first.say(QUESTION)
            joined += 1
        await joining
        assert joined, "nobody asked anything while it started"
        # Chats of its own, and those that were there before.
        await second.say(QUESTION)
        phases.append(await phase("two engines", ledger, drawn, lambda: turns(second)))
        assert all(phases[-1].tokens), "an engine drew nothing"
        talking = asyncio.create_task(turns(second))
        await second.in_mid_answer(2)
        await leave()
        await talking
        phases.append(await phase("one again", ledger, drawn, lambda: turns(first)))
        await first.repeat()
        await second.repeat()
    return phases


def write(page: Path, title: str, phases: Sequence[Phase], notes: Sequence[str] = ()) -> None:
    """Leave the figures as a page."""
    rows = [HEAD, "|---|---:|---:|---:|---:|", *(each.row() for each in phases)]
    lines = [f"# {title}", "", *rows, "", *(f"- {note}" for note in notes)]
    page.parent.mkdir(exist_ok=True)
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _own(reading: Reading) -> bool:
    """Whether it is of who asked, not of a second reader."""
    return "'" not in reading.reader
