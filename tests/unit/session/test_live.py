"""Any interleaving of one writer and many readers: all read the same text."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parley_kit.errors import ServiceError
from parley_session.runs.live import Gone, LiveRun, tail_of

pieces = st.lists(st.text(min_size=1, max_size=5), max_size=20)


def write(live: LiveRun, text: str) -> None:
    """Add a piece as the writer does."""
    live.append(text, live.length + len(text.encode()))


@settings(deadline=None)
@given(pieces=pieces, data=st.data())
def test_all_readers_read_the_same_text_from_wherever_they_begin(
    pieces: list[str], data: st.DataObject
) -> None:
    whole = "".join(pieces)
    characters = [len(whole[:n].encode()) for n in range(len(whole) + 1)]
    starts = data.draw(st.lists(st.sampled_from(characters), max_size=5))
    # For each piece: how often the readers are let run before it is written.
    turns = data.draw(st.lists(st.integers(0, 3), min_size=len(pieces), max_size=len(pieces)))

    async def play() -> list[str]:
        live = LiveRun("run")

        async def read(offset: int) -> str:
            text, position = "", offset
            async for piece in live.read(offset):
                text += piece.text
                position += len(piece.text.encode())
                assert piece.end == position
            return text

        readers = [asyncio.create_task(read(start)) for start in starts]
        for text, turn in zip(pieces, turns, strict=True):
            for _ in range(turn):
                await asyncio.sleep(0)
            write(live, text)
        live.close(Gone.MOVED)
        late = [asyncio.create_task(read(start)) for start in starts]
        return await asyncio.gather(*readers, *late)

    expected = [whole.encode()[start:].decode() for start in starts]
    assert asyncio.run(play()) == expected * 2


async def test_a_reader_that_leaves_disturbs_nobody() -> None:
    live = LiveRun("run")

    async def read() -> str:
        return "".join([piece.text async for piece in live.read(0)])

    leaving, staying = asyncio.create_task(read()), asyncio.create_task(read())
    await asyncio.sleep(0)
    leaving.cancel()
    write(live, "on")
    live.close(Gone.MOVED)
    assert await staying == "on"


async def test_a_reader_up_to_date_gets_the_very_string_that_was_written() -> None:
    live = LiveRun("run")
    reading = live.read(0)
    for text in ("one", "two"):
        write(live, text)
        assert (await anext(reading)).text is text
    await reading.aclose()


async def test_the_first_ending_stands() -> None:
    live = LiveRun("run")
    live.close(Gone.DELETED)
    live.close(Gone.MOVED)
    assert await live.closed() is Gone.DELETED


@pytest.mark.parametrize("offset", [2, 99])
def test_a_place_inside_a_character_or_beyond_the_end_is_refused(offset: int) -> None:
    with pytest.raises(ServiceError) as refused:
        tail_of("aö", offset)
    assert refused.value.code == "bad_event_id"
