"""The first token leaves at once, later ones together, and the end ends all waiting."""

import asyncio

import pytest

from parley_inference.answer.assembler import Assembler
from parley_inference.answer.outbox import Outbox
from parley_inference.engine.base import Step

LONG = 3600.0


def token(number: int, text: str = "x") -> Step:
    return Step((number,), (text,))


async def test_the_first_token_leaves_at_once_and_the_rest_with_the_end() -> None:
    outbox = Outbox(Assembler(), LONG)
    outbox.put(token(1))
    assert await outbox.first() == token(1)
    first = await outbox.get()
    assert first is not None
    assert first.token_ids == [1]
    waiting = asyncio.ensure_future(outbox.get())
    for number in range(2, 10):
        outbox.put(token(number))
        await asyncio.sleep(0)
    assert not waiting.done()
    outbox.end()
    second = await waiting
    assert second is not None
    assert second.token_ids == list(range(2, 10))
    assert second.offset == 1
    assert await outbox.get() is None


async def test_tokens_of_the_lingering_time_leave_together() -> None:
    outbox = Outbox(Assembler(), 0.001)
    outbox.put(token(1))
    await outbox.get()
    outbox.put(token(2))
    outbox.put(token(3))
    async with asyncio.timeout(5):
        chunk = await outbox.get()
    assert chunk is not None
    assert chunk.token_ids == [2, 3]
    outbox.close()


async def test_without_lingering_each_token_leaves_at_once() -> None:
    outbox = Outbox(Assembler(), 0)
    for number in range(3):
        outbox.put(token(number))
        chunk = await outbox.get()
        assert chunk is not None
        assert chunk.token_ids == [number]


async def test_a_failure_lets_out_what_is_ready_and_is_raised_then() -> None:
    outbox = Outbox(Assembler(), LONG)
    outbox.put(token(1))
    await outbox.get()
    outbox.put(token(2))
    outbox.fail(ValueError("lost"))
    chunk = await outbox.get()
    assert chunk is not None
    assert chunk.token_ids == [2]
    with pytest.raises(ValueError, match="lost"):
        await outbox.get()


async def test_a_failure_before_the_first_token_is_raised_to_who_waits_for_it() -> None:
    outbox = Outbox(Assembler(), LONG)
    waiting = asyncio.ensure_future(outbox.first())
    await asyncio.sleep(0)
    outbox.fail(ValueError("never"))
    with pytest.raises(ValueError, match="never"):
        await waiting


async def test_a_deadline_is_raised_before_anything_that_is_ready() -> None:
    outbox = Outbox(Assembler(), LONG)
    outbox.put(token(1))
    outbox.fail(TimeoutError(), at_once=True)
    with pytest.raises(TimeoutError):
        await outbox.get()


async def test_what_fails_after_the_end_is_not_told() -> None:
    outbox = Outbox(Assembler(), LONG)
    outbox.put(token(1))
    outbox.end()
    outbox.fail(ValueError("too late"))
    assert await outbox.get() is not None
    assert await outbox.get() is None
