"""Events of an engine on their way to the log: by themselves, or together when that is behind."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from parley.inference.v1 import inference_pb2 as pb

from parley_kit.errors import ServiceError
from parley_session.domain import errors
from parley_session.runs.gathering import MOST_WAITING, gathered
from parley_session.runs.log import LogEntry
from support.poll import until
from support.session_world import World, asking


class Source:
    """An engine that says what it is told to, when it is told to."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self.read = 0
        self.closed = False

    async def events(self) -> AsyncGenerator[pb.GenerateResponse, None]:
        try:
            while (text := await self.coming.get()) is not None:
                if isinstance(text, Exception):
                    raise text
                self.read += 1
                yield pb.GenerateResponse(chunk=pb.GenerationChunk(text=text))
        finally:
            self.closed = True

    def say(self, *texts: str | Exception | None) -> None:
        for text in texts:
            self.coming.put_nowait(text)


async def texts(some: asyncio.Future[object] | object) -> list[str]:
    return [event.chunk.text for event in await some]  # type: ignore[misc]


async def test_what_is_waited_for_goes_on_by_itself() -> None:
    source = Source()
    async with gathered(source.events()) as events:
        for text in "abc":
            taking = asyncio.ensure_future(events.take())
            await asyncio.sleep(0)
            source.say(text)
            assert await texts(taking) == [text]
        source.say(None)
        assert await events.take() == ()
        assert await events.take() == ()
    assert source.closed


async def test_what_came_meanwhile_goes_together_in_order() -> None:
    source = Source()
    async with gathered(source.events()) as events:
        source.say("a", "b", "c")
        await until(lambda: source.read == 3)
        source.say("d", None)
        await until(lambda: source.closed)
        assert await texts(events.take()) == ["a", "b", "c", "d"]
        assert await events.take() == ()


async def test_what_waits_is_bounded_and_goes_on_when_some_was_taken() -> None:
    source = Source()
    source.say(*(str(number) for number in range(3 * MOST_WAITING)), None)
    async with gathered(source.events()) as events:
        await until(lambda: source.read == MOST_WAITING)
        for _ in range(10):
            await asyncio.sleep(0)
        assert source.read == MOST_WAITING
        seen: list[str] = []
        while some := await texts(events.take()):
            assert len(some) <= MOST_WAITING
            seen += some
    assert seen == [str(number) for number in range(3 * MOST_WAITING)]


async def test_a_failure_comes_after_what_came_before_it() -> None:
    source = Source()
    source.say("a", errors.engine_lost("gone"))
    async with gathered(source.events()) as events:
        await until(lambda: source.closed)
        assert await texts(events.take()) == ["a"]
        with pytest.raises(ServiceError):
            await events.take()


async def test_whoever_leaves_closes_the_call() -> None:
    source = Source()

    async def draw() -> None:
        async with gathered(source.events()) as events:
            await events.take()

    drawing = asyncio.create_task(draw())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    drawing.cancel()
    await asyncio.wait({drawing})
    assert drawing.cancelled()
    assert source.closed


async def test_an_answer_whose_log_is_slow_is_written_in_fewer_pieces(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, let_through = world.log.append, asyncio.Event()
    written: list[LogEntry] = []

    async def slow(stream: str, entry: LogEntry) -> None:
        written.append(entry)
        await let_through.wait()
        await append(stream, entry)

    monkeypatch.setattr(world.log, "append", slow)
    world.fleet.pause = True
    replica = world.replica()
    accepted = await replica.start(asking())
    await until(lambda: len(written) == 1 and world.fleet.drawing == 0)
    # Nothing was seen before it was logged.
    assert accepted.live.length == 0
    let_through.set()
    text, ended = await replica.read(accepted.run.id, live=accepted.live)
    assert text == ended.run.content == world.fleet.text
    pieces = [entry for entry in written if not entry.last]
    first, *others = world.fleet.answer
    assert [entry.text for entry in pieces] == [first, "".join(others)]
    assert [entry.offset for entry in pieces] == [0, len(first.encode())]
    assert [entry.token_ids for entry in pieces] == [(0,), tuple(range(1, 1 + len(others)))]
    assert [entry.finish_reason for entry in pieces] == [None, "stop"]
