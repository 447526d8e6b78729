"""One fault: a crowd in mid-answer, the blow, what became of it all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.crowd import Crowd, Patience
from support.evidence import collect
from support.fault_stack import LEASE_SECONDS, LOG_TTL_SECONDS, FaultStack
from support.fault_table import Row, Table, ends_after, row_of, words_of_ends
from support.ledger import Ledger, Reading
from support.poll import until
from support.verdict import Kind, judge


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a crowd is, and what it asks for. `at_least` answers must be struck at once."""

    streams: int = 24
    at_least: int = 20
    witnesses: int = 4
    short: str = "[[sim:length tokens=6]]"
    long: str = "[[sim:length tokens=90]]"
    max_tokens: int = 200
    # Seconds: for every answer to go on after a fault; for a turn with all that befalls it.
    recovery: float = 60.0
    turn: float = 90.0

    def options(self) -> dict[str, object]:
        """The options of every answer."""
        return {"maxTokens": self.max_tokens, "timeoutSeconds": round(self.turn)}

    def crowd(self, platform: FaultStack, ledger: Ledger) -> Crowd:
        """So many clients of a platform."""
        return Crowd(
            platform.urls,
            ledger,
            size=self.streams,
            witnesses=self.witnesses,
            patience=Patience(turn=self.turn),
            options=self.options(),
        )


SIM_SCALE = Scale()


async def warm_up(platform: FaultStack, scale: Scale) -> None:
    """Have a first crowd fill the pools, and take note of what is held then."""
    with Ledger() as ledger:
        async with scale.crowd(platform, ledger) as crowd:
            await crowd.say(scale.short)
            await crowd.say(scale.short)
    await platform.come_to_rest()
    await platform.remember_footprints()


# What a replica says when a write of its own is refused by the fence.
FENCED = "another attempt has the run"


@dataclass(slots=True)
class Blow:
    """What a fault is told: the platform, and the answers that it strikes."""

    platform: FaultStack
    readings: Sequence[Reading]
    at: float
    ledger: Ledger
    recovery: float
    healed_at: float | None = None

    def heal_links(self) -> None:
        """Let everything pass again."""
        self.platform.heal_links()
        self.healed_at = self.ledger.now()

    async def all_went_on(self, beyond: float = 0.5) -> None:
        """Wait until every struck answer has come on, `beyond` seconds after the blow, or ended."""
        await until(
            lambda: not self.stuck(beyond),
            timeout=self.recovery,
            what="every answer goes on",
        )

    async def last(self, seconds: float) -> None:
        """Let the fault last so long."""
        end = self.ledger.now() + seconds
        await until(lambda: self.ledger.now() >= end, timeout=seconds + 5)

    def stuck(self, beyond: float) -> list[Reading]:
        """The struck answers of which nothing has come since."""
        return [
            reading
            for reading in self.readings
            if not reading.ending and reading.moments()[-1] < self.at + beyond
        ]


# Strikes, waits for as long as the fault is to last, and heals.
Fault = Callable[[Blow], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """A fault with its names in the table, and how many answers it must disturb."""

    fault: str
    victim: str
    strike: Fault
    disturbs: int = 1
    # A counter that must have grown somewhere: the fault was met. (kind, sample, label)
    met_by: tuple[str, str, str] | None = None
    # A part that must have found itself fenced: it slept past its lease and woke up.
    fenced: str = ""
    # Behind every answer another message waits in its chat.
    behind: bool = False

    @property
    def name(self) -> str:
        """The id of its test."""
        return f"{self.fault} {self.victim}".replace(" ", "-")


async def try_case(
    case: Case, platform: FaultStack, table: Table, folder: Path, scale: Scale = SIM_SCALE
) -> Row:
    """Run a case and judge it. Raises AssertionError for anything that is not as promised."""
    with Ledger(folder / "ledger.jsonl") as ledger:
        async with scale.crowd(platform, ledger) as crowd, crowd.behind() as behind:
            await crowd.say(scale.short)
            behind.join(crowd)
            answering = [asyncio.create_task(crowd.say(scale.long))]
            try:
                if case.behind:
                    await crowd.acknowledged(2)
                    answering.append(asyncio.create_task(behind.say(scale.short)))
                    await behind.acknowledged(1)
                struck = await crowd.in_mid_answer(scale.at_least)
                counted = await platform.counters()
                told = len(platform.log_lines(case.fenced, FENCED)) if case.fenced else 0
                blow = Blow(platform, struck, ledger.now(), ledger, scale.recovery)
                await case.strike(blow)
                await asyncio.gather(*answering)
                met = await platform.growth(*case.met_by, counted) if case.met_by else 0.0
            finally:
                for each in answering:
                    each.cancel()
                await asyncio.wait(answering)
            await crowd.say(scale.short)
            await platform.come_to_rest()
            await crowd.repeat()
            await behind.repeat()
        await platform.come_to_rest()
        evidence = await collect(
            ledger,
            url=platform.stack.urls[0],
            mongodb_uri=platform.stack.mongodb_uri,
            redis_url=platform.stack.redis_url,
        )
        verdict = judge(ledger, evidence, log_ttl_seconds=LOG_TTL_SECONDS)
        row = row_of(
            case.fault,
            case.victim,
            ledger=ledger,
            evidence=evidence,
            verdict=verdict,
            struck=struck,
            struck_at=blow.at,
        )
        table.add(row)
    if blow.healed_at is not None and (ends := ends_after(struck, blow.healed_at)):
        table.notes.append(words_of_ends(case.fault, case.victim, ends))
    between = [r for r in struck if r.deltas[0].at < blow.at < r.deltas[-1].at]
    assert len(between) >= scale.at_least, f"struck only {len(between)} in mid-answer"
    assert verdict.count(*Kind) == 0, f"\n{verdict}"
    assert row.disturbed >= case.disturbs, row
    assert row.recovered == row.disturbed, row
    assert met or not case.met_by, f"{case.met_by} has not grown"
    if case.fenced:
        lines = platform.log_lines(case.fenced, FENCED)[told:]
        attempts = [evidence.stored_runs[json.loads(line)["run"]]["attempt"] for line in lines]
        assert attempts, f"{case.fenced} woke up and was not fenced"
        assert min(attempts) > 1, attempts
        table.notes.append(
            f"{case.fenced} slept past its lease of {LEASE_SECONDS:.0f} s; when it woke up, "
            f"{len(lines)} of its writes were refused: the runs had attempts {attempts}"
        )
    await platform.let_go()
    return row
