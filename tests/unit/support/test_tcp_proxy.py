"""The fault proxy does to connections what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from support.poll import until
from support.tcp_proxy import CHUNK, TcpProxy

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def echo() -> AsyncIterator[str]:
    """A server that sends back what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.fixture
async def proxy() -> AsyncIterator[TcpProxy]:
    async with echo() as target, TcpProxy(target) as proxy:
        yield proxy


async def connect(proxy: TcpProxy) -> Pair:
    host, port = proxy.address.split(":")
    return await asyncio.open_connection(host, int(port))


async def exchange(pair: Pair, data: bytes) -> bytes:
    reader, writer = pair
    writer.write(data)
    await writer.drain()
    async with asyncio.timeout(5):
        return await reader.readexactly(len(data))


async def close(pair: Pair) -> None:
    pair[1].transport.abort()


async def test_bytes_pass_both_ways_and_the_end_of_file_too(proxy: TcpProxy) -> None:
    pair = await connect(proxy)
    data = bytes(range(256)) * 1000
    sending = asyncio.create_task(pair[0].readexactly(len(data)))
    pair[1].write(data)
    assert await asyncio.wait_for(sending, 5) == data
    pair[1].write_eof()
    assert await asyncio.wait_for(pair[0].read(), 5) == b""
    await close(pair)
    await until(lambda: proxy.open == 0)
    assert proxy.counts.bytes == 2 * len(data)


async def test_a_stalled_link_stays_open_and_goes_on_when_healed(proxy: TcpProxy) -> None:
    pair = await connect(proxy)
    assert await exchange(pair, b"before") == b"before"
    proxy.stall()
    another = await connect(proxy)  # is accepted all the same
    for each in (pair, another):
        each[1].write(b"held")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pair[0].read(1), 0.1)
    assert proxy.counts.bytes == 2 * len(b"before")
    proxy.heal()
    for each in (pair, another):
        assert await asyncio.wait_for(each[0].readexactly(4), 5) == b"held"
        await close(each)


async def test_nothing_is_heard_of_an_end_behind_a_stalled_link() -> None:
    async def end_when_told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await told.wait()
        writer.transport.abort()

    told = asyncio.Event()
    server = await asyncio.start_server(end_when_told, "127.0.0.1", 0)
    async with TcpProxy(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as proxy:
        pair = await connect(proxy)
        await until(lambda: proxy.counts.connections == 1)
        proxy.stall()
        told.set()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pair[0].read(1), 0.1)
        proxy.heal()
        assert await asyncio.wait_for(pair[0].read(1), 5) == b""
        await close(pair)
    server.close()


async def test_a_stalled_link_holds_a_bounded_number_of_bytes(proxy: TcpProxy) -> None:
    pair = await connect(proxy)
    proxy.stall()
    pair[1].transport.set_write_buffer_limits(high=CHUNK)
    written = 0

    async def write_for_ever() -> None:
        nonlocal written
        while True:
            pair[1].write(b"x" * CHUNK)
            await asyncio.wait_for(pair[1].drain(), 0.2)
            written += CHUNK

    with pytest.raises(TimeoutError):
        await write_for_ever()
    assert written < 8 * 1024 * 1024  # the kernel's buffers on the way, and no more
    await close(pair)


async def test_connections_are_reset_after_so_many_bytes_and_then_all_passes(
    proxy: TcpProxy,
) -> None:
    first, second = await connect(proxy), await connect(proxy)
    assert await exchange(first, b"1") == await exchange(second, b"1") == b"1"
    proxy.reset_after(10)
    first[1].write(b"0123456789abcdef")
    for pair in (first, second):
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(pair[0].readexactly(64), 5)
    assert proxy.counts.resets == 2
    third = await connect(proxy)
    assert await exchange(third, b"again") == b"again"
    for pair in (first, second, third):
        await close(pair)


async def test_a_slow_link_carries_so_many_bytes_a_second(proxy: TcpProxy) -> None:
    loop = asyncio.get_running_loop()
    pair = await connect(proxy)
    proxy.slow(2000)
    began = loop.time()
    assert await exchange(pair, b"x" * 400) == b"x" * 400
    assert loop.time() - began >= 0.2
    pair[1].write(b"y" * 100_000)
    assert await asyncio.wait_for(pair[0].readexactly(1), 5)
    proxy.heal()
    assert await asyncio.wait_for(pair[0].readexactly(99_999), 5)
    await close(pair)


async def test_a_cut_link_is_reset_and_refuses_until_healed(proxy: TcpProxy) -> None:
    pair = await connect(proxy)
    assert await exchange(pair, b"before") == b"before"
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(pair[0].readexactly(1), 5)
    another = await connect(proxy)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(another[0].readexactly(1), 5)
    proxy.heal()
    healed = await connect(proxy)
    assert await exchange(healed, b"after") == b"after"
    for each in (pair, another, healed):
        await close(each)


async def test_a_target_that_is_away_is_a_connection_that_ends() -> None:
    async with TcpProxy("127.0.0.1:1") as proxy:
        pair = await connect(proxy)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(pair[0].readexactly(1), 5)
        await close(pair)
        await until(lambda: proxy.open == 0)
