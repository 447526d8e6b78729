"""The benchmark's parts: interleaving, ratios, the table, its HTTP client."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from parley_loadtest.bench.cpu import BENCH, CpuMeter, difference
from parley_loadtest.bench.http import BadAnswer, HttpConnection
from parley_loadtest.bench.ids import uuid7
from parley_loadtest.bench.paths import Counted, GatewayWay, question
from parley_loadtest.bench.rounds import Load, Sample, Samples, measure, order
from parley_loadtest.bench.table import table

LOAD = Load("streamed tokens", concurrency=2, tokens=10, seconds=0.05, streamed=True)


def samples(**rates: Sequence[int]) -> Samples:
    return Samples(
        LOAD,
        {
            way: [Sample(2.0, 1, rate, 2, {"session-1": 0.5}) for rate in rounds]
            for way, rounds in rates.items()
        },
    )


def test_each_round_begins_with_another_way() -> None:
    ways = ["a", "b", "c"]
    assert [order(ways, n) for n in range(3)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
    ]


def test_a_ratio_compares_ways_round_by_round() -> None:
    measured = samples(engine=[100, 200, 400], gateway=[50, 150, 100])
    assert measured.ratio("gateway", "engine") == (0.5, 0.25, 0.75)
    assert measured.ratio("engine", "engine") == (1.0, 1.0, 1.0)
    assert samples(engine=[0], gateway=[5]).ratio("gateway", "engine") == (0.0, 0.0, 0.0)


def test_cpu_is_counted_per_thousand_tokens_of_all_rounds() -> None:
    measured = samples(engine=[500, 1500])
    assert measured.cpu_per_thousand("engine", "session-1") == pytest.approx(0.5)
    assert measured.cpu_per_thousand("engine", "nobody") == 0.0
    assert samples(engine=[0]).cpu_per_thousand("engine", "session-1") == 0.0


def test_the_table_names_every_way_setting_and_process() -> None:
    text = table([("coalescing 20 ms", [samples(engine=[100], gateway=[50])])])
    for word in ("coalescing 20 ms", "streamed tokens", "engine", "gateway", "0.500", "session-1"):
        assert word in text


def test_cpu_of_this_process_is_read_and_only_grows() -> None:
    meter = CpuMeter({"itself": os.getpid()})
    before, after = meter.read(), meter.read()
    assert set(before) == {BENCH, "itself"}
    assert all(seconds >= 0 for seconds in difference(before, after).values())


def test_ids_are_version_7_and_sort_by_time() -> None:
    ids = [uuid7() for _ in range(50)]
    assert all(uuid.UUID(one).version == 7 for one in ids)
    assert [one[:8] for one in ids] == sorted(one[:8] for one in ids)
    assert len(set(ids)) == 50
    assert question() != question()


class Counter:
    """A way that answers at once, and knows whether it was closed."""

    def __init__(self) -> None:
        self.asked = 0
        self.closed = False

    async def answer(self, question: str, tokens: int, *, streamed: bool) -> Counted:
        self.asked += 1
        await asyncio.sleep(0)
        if tokens == 13:
            raise BadAnswer("503 overloaded")
        return Counted(tokens, 2)

    async def close(self) -> None:
        self.closed = True


async def test_every_way_is_measured_in_every_round_and_closed() -> None:
    made: list[Counter] = []

    def make() -> Counter:
        made.append(Counter())
        return made[-1]

    [measured] = await measure({"engine": make, "gateway": make}, [LOAD], 3, CpuMeter({}))
    assert {way: len(rounds) for way, rounds in measured.by_way.items()} == {
        "engine": 3,
        "gateway": 3,
    }
    for rounds in measured.by_way.values():
        assert all(one.tokens == 10 * one.answers > 0 for one in rounds)
    assert len(made) == 4
    assert all(way.closed and way.asked for way in made)


async def test_an_answer_that_fails_ends_the_measurement_and_closes_all() -> None:
    made: list[Counter] = []

    def make() -> Counter:
        made.append(Counter())
        return made[-1]

    bad = Load("bad", concurrency=2, tokens=13, seconds=1.0, streamed=True)
    with pytest.raises(ExceptionGroup, match="TaskGroup"):
        await measure({"engine": make}, [bad], 1, CpuMeter({}))
    assert all(way.closed for way in made)


Serve = Callable[[bytes], "asyncio.Future[str]"]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[bytes], object]]:
    """Serves one fixed response to every request, and gives its URL."""
    servers: list[asyncio.Server] = []

    async def start(response: bytes) -> str:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                for part in response.split(b"|"):
                    writer.write(part)
                    await writer.drain()
                if b"close" in response:
                    break
            writer.close()

        async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handle(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        server = await asyncio.start_server(quiet, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunk(b'event: delta\ndata: {"text":"a"}\n')
    + b"|"
    + chunk(b"\n")
    + chunk(b'event: done\ndata: {"usage":{"completionTokens":7}}\n\n')
    + b"|"
    + chunk(b"")
)


async def test_a_stream_is_read_to_its_end_and_the_connection_kept(
    serve: Callable[[bytes], object],
) -> None:
    url = await serve(STREAM)  # type: ignore[misc]
    way = GatewayWay(str(url))
    for _ in range(3):
        assert await way.answer("q", 7, streamed=True) == Counted(tokens=7, pieces=1)
    await way.close()


async def test_silence_is_told_and_whose(serve: Callable[[bytes], object]) -> None:
    url = str(await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"))  # type: ignore[misc]
    connection = HttpConnection(url, seconds=0.05)
    with pytest.raises(BadAnswer, match=f"{url}/chat was silent"):
        _ = [part async for part in connection.post("/chat", b"{}", "application/json")]
    await connection.close()


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (b"HTTP/1.1 503 X\r\nContent-Length: 10\r\n\r\noverloaded", "503: overloaded"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\ncut", "mid-answer"),
    ],
)
async def test_what_is_no_answer_is_told(
    serve: Callable[[bytes], object], response: bytes, said: str
) -> None:
    connection = HttpConnection(str(await serve(response)))  # type: ignore[misc]
    with pytest.raises(BadAnswer, match=said):
        _ = [part async for part in connection.post("/chat", b"{}", "application/json")]
    await connection.close()
