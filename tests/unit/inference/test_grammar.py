"""Schemas are judged once, beside the event loop, within bounds of time and number."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from parley_inference.engine.base import EngineBusy, RequestRefused
from parley_inference.engine.grammar import GrammarCheck
from support.poll import until


class Compiler:
    """Judges by the schema's name; one called `slow` waits until ``go``."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.threads: set[str] = set()
        self.go = threading.Event()

    def __call__(self, schema: str) -> str:
        self.asked.append(schema)
        self.threads.add(threading.current_thread().name)
        if schema.startswith("slow"):
            assert self.go.wait(30)
        return "is wrong" if schema.endswith("bad") else ""


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    made = Compiler()
    yield made
    made.go.set()


@pytest.fixture
def patient(compiler: Compiler) -> Iterator[GrammarCheck]:
    made = GrammarCheck(compiler, 30.0)
    yield made
    made.close()


async def test_a_verdict_is_remembered(patient: GrammarCheck, compiler: Compiler) -> None:
    for _ in range(2):
        await patient.check("good")
        with pytest.raises(RequestRefused, match="is wrong") as refused:
            await patient.check("bad")
        assert refused.value.field == "sampling.json_schema"
    assert compiler.asked == ["good", "bad"]
    assert threading.current_thread().name not in compiler.threads


async def test_only_so_many_verdicts_are_remembered(
    patient: GrammarCheck, compiler: Compiler
) -> None:
    for number in range(300):
        await patient.check(str(number))
    await patient.check("0")
    await patient.check("299")
    assert len(compiler.asked) == 301


async def test_a_schema_that_takes_too_long_is_refused_and_judged_to_the_end(
    compiler: Compiler,
) -> None:
    hasty = GrammarCheck(compiler, 0.05)
    for _ in range(2):
        with pytest.raises(RequestRefused, match="too long"):
            await hasty.check("slow")
    compiler.go.set()
    await until(lambda: not hasty._pending, what="the judgement")
    await hasty.check("slow")
    assert compiler.asked == ["slow"]
    hasty.close()


async def test_many_who_ask_for_one_schema_have_it_judged_once(
    patient: GrammarCheck, compiler: Compiler
) -> None:
    asking = [asyncio.create_task(patient.check("slow bad")) for _ in range(20)]
    await until(lambda: compiler.asked, what="the compiler")
    asking[0].cancel()
    compiler.go.set()
    ended = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert all(isinstance(error, RequestRefused) for error in ended[1:])
    assert compiler.asked == ["slow bad"]


async def test_only_so_many_schemas_wait(patient: GrammarCheck, compiler: Compiler) -> None:
    asking = [asyncio.create_task(patient.check(f"slow {number}")) for number in range(8)]
    await until(lambda: len(patient._pending) == 8, what="eight schemas")
    with pytest.raises(EngineBusy):
        await patient.check("another")
    compiler.go.set()
    await asyncio.gather(*asking)
    await patient.check("another")
