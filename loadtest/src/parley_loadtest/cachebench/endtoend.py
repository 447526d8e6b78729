"""Part two: what the cache saves of a workload, and what a miss costs, through the platform.

The engine is `sim`, paced like a small model on a GPU. The same questions are asked with the
cache in use and passed by, in turn; what was saved is a ratio of the two. A miss is measured
of three kinds: where the cache has nothing of the asker, so that nothing is embedded; where it
has answers about other matters; and where it has some to questions that are much alike, so
that rules and judge have to tell them apart.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from parley_loadtest.bench.http import BadAnswer, HttpConnection
from parley_loadtest.prompts import built_in_scripts
from parley_loadtest.target import LIKE_A_SMALL_GPU, sim_stack

_SEED = 11
_TEMPERATURE = 0
_TOKENS = 64
"""Of an answer, at most."""
_IN_BRIEF = dataclasses.replace(LIKE_A_SMALL_GPU, answer_tokens=4)
"""Where the first text alone is measured, of answers that are whole and kept."""
_KEPT = 25
"""Questions much alike of one asker that are answered before the next ones are measured."""
_OTHER_MATTERS = (
    "What should I pack for a week of hiking in Scotland?",
    "Which vitamins does a vegan have to take?",
)
NOTHING = "where nothing was kept"
OTHERS = "beside answers about other matters"
ALIKE = "beside answers to questions much alike"
_AT_ONCE = 8
# Semantic matching needs the embedding model; without it the exact tier serves alone.
_ENV = {"cache": {"PARLEY_CACHE_SEMANTIC": "auto"}}


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, as its asker saw it. Seconds."""

    first: float
    whole: float
    tokens: int
    """Drawn by the engine for it."""
    status: str


@dataclass(slots=True)
class Misses:
    """First texts of misses, and of the same questions without the cache. Seconds."""

    used: list[float] = field(default_factory=list)
    without: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Measured:
    """What came of both parts."""

    used: list[Answered] = field(default_factory=list)
    passed_by: list[Answered] = field(default_factory=list)
    misses: dict[str, Misses] = field(default_factory=dict)


async def _ask(
    connection: HttpConnection, question: str, mode: str, user: str = "bench"
) -> Answered:
    body = {
        "message": question,
        "userID": user,
        "stream": True,
        "options": {"temperature": _TEMPERATURE, "maxTokens": _TOKENS, "cache": mode},
    }
    began = time.perf_counter()
    first, text = 0.0, b""
    async for piece in connection.post("/chat", orjson.dumps(body), "text/event-stream"):
        text += piece
        if not first and b"event: delta" in text:
            first = time.perf_counter() - began
    whole = time.perf_counter() - began
    done = next((part for part in text.split(b"\n\n") if b"event: done" in part), b"")
    data = next((line[5:] for line in done.split(b"\n") if line.startswith(b"data:")), b"")
    if not data or not first:
        raise BadAnswer("an answer did not end with `done`")
    answer = orjson.loads(data)
    status = answer["cache"]["status"]
    drawn = 0 if status in ("exact", "semantic") else answer["usage"]["completionTokens"]
    return Answered(first, whole, drawn, status)


def workload(answers: int, repeated: float) -> list[str]:
    """Questions of which such a share was asked before, and long enough before to be answered."""
    numbers = random.Random(_SEED)
    asked: list[str] = []
    for number in range(answers):
        answered = asked[: -2 * _AT_ONCE]
        if answered and numbers.random() < repeated:
            asked.append(numbers.choice(answered))
        else:
            asked.append(f"How do I set up the heating of house number {number} for the winter?")
    return asked


async def _run(url: str, questions: Sequence[str], mode: str, run: str) -> list[Answered]:
    waiting = iter(questions)

    async def person() -> list[Answered]:
        connection = HttpConnection(url)
        try:
            return [await _ask(connection, f"{run}: {one}", mode) for one in waiting]
        finally:
            await connection.close()

    async with asyncio.TaskGroup() as group:
        people = [group.create_task(person()) for _ in range(_AT_ONCE)]
    return [answer for one in people for answer in one.result()]


async def measure(answers: int, repeated: float, rounds: int) -> Measured:
    """Measure on a platform of its own. Raises NoTarget and BadAnswer."""
    measured = Measured()
    async with sim_stack(LIKE_A_SMALL_GPU, env=_ENV) as stack:
        await _run(stack.url, ["Warm up."] * _AT_ONCE, "bypass", "first")
        for round_ in range(rounds):
            questions = workload(max(1, answers // rounds), repeated)
            for mode in ("use", "bypass") if round_ % 2 else ("bypass", "use"):
                found = await _run(stack.url, questions, mode, f"{round_}")
                (measured.used if mode == "use" else measured.passed_by).extend(found)
            print(f"  workload: round {round_ + 1} of {rounds}", flush=True)
    async with sim_stack(_IN_BRIEF, env=_ENV) as stack:
        await _run(stack.url, ["Warm up."] * _AT_ONCE, "bypass", "first")
        connection = HttpConnection(stack.url)
        try:
            await _miss(connection, measured)
        finally:
            await connection.close()
    return measured


async def _miss(connection: HttpConnection, measured: Measured) -> None:
    """Ask what was never asked, of each kind in turn."""
    questions = [script.first for script in built_in_scripts()]
    random.Random(_SEED).shuffle(questions)
    for question in questions[:_KEPT]:
        await _ask(connection, question, "use", "regular")
    for number, question in enumerate(questions[_KEPT:]):
        for matter in _OTHER_MATTERS:
            await _ask(connection, matter, "use", f"other-{number}")
        # Worded for each kind anew: what was embedded a moment ago is remembered.
        for kind, user, asked in (
            (NOTHING, f"new-{number}", question),
            (OTHERS, f"other-{number}", f"{question} Thanks."),
            (ALIKE, "regular", f"Please: {question}"),
        ):
            first: dict[str, Answered] = {}
            # In turn, so that a mood of the machine strikes both alike.
            for mode in ("use", "bypass") if number % 2 else ("bypass", "use"):
                first[mode] = await _ask(connection, asked, mode, user)
            if first["use"].status == "miss":
                misses = measured.misses.setdefault(kind, Misses())
                misses.used.append(first["use"].first)
                misses.without.append(first["bypass"].first)


def ratios(measured: Measured, repeated: float) -> list[str]:
    """What was saved and what it cost, in sentences."""
    used, by = measured.used, measured.passed_by
    served = sum(one.status in ("exact", "semantic") for one in used) / len(used)
    time_saved = 1 - sum(one.whole for one in used) / sum(one.whole for one in by)
    tokens_saved = 1 - sum(one.tokens for one in used) / sum(one.tokens for one in by)
    hits = [one.first for one in used if one.status in ("exact", "semantic")]
    lines = [
        f"workload of {len(used)} answers, after the first ones {repeated:.0%} asked before: "
        f"{served:.1%} served from the cache, "
        f"{time_saved:.1%} of the time and {tokens_saved:.1%} of the tokens saved",
    ]
    if hits:
        # Of the same workload, so that both had as many beside them.
        first = statistics.median(hits) / statistics.median(one.first for one in by)
        lines.append(f"first text of a hit / without the cache: {first:.3f}")
    lines += [_cost(kind, misses) for kind, misses in measured.misses.items()]
    return lines


def _cost(kind: str, misses: Misses) -> str:
    without = statistics.median(misses.without)
    differences = [a - b for a, b in zip(misses.used, misses.without, strict=True)]
    low, cost, high = statistics.quantiles(differences, n=4)
    return (
        f"cost of a miss {kind} / TTFT without the cache: {cost / without:.2%} "
        f"(quartiles {low / without:.2%} to {high / without:.2%} of {len(differences)}; TTFT "
        f"{1000 * without:.0f} ms; target: under 5 %)"
    )
