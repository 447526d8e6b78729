"""Engines that send rubbish, that are slow, and that die of what they do."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from parley.inference.v1 import inference_pb2 as pb

from parley_kit.errors import ServiceError
from parley_kit.rpc.options import MAX_MESSAGE_BYTES
from parley_session.fleet.grpc_fleet import GrpcFleet
from parley_session.fleet.outliers import OutlierLimits
from support.fleets import address, chat_at, choices, draw, engines, fleet_of
from support.poll import until
from support.spoilt_engine import spoilt

pytestmark = pytest.mark.integration

# What no message of any method begins with: a field of the number 0.
NO_MESSAGE = b"\x00\xff\xff"
# A token a chunk, and enough of them that there is a middle.
PACED = {"sim_itl": 0.003, "sim_answer_tokens": 0, "coalesce_seconds": 0.0}
TOKENS = 24
MIDDLE = 5

Change = Callable[[int, bytes], Sequence[bytes]]


def event(data: bytes) -> pb.GenerateResponse:
    return pb.GenerateResponse.FromString(data)


def in_the_middle(*instead: bytes) -> Change:
    return lambda number, data: instead if number == MIDDLE else [data]


def twice(number: int, data: bytes) -> Sequence[bytes]:
    return [data, data] if number == MIDDLE else [data]


def from_the_beginning_again(number: int, data: bytes) -> Sequence[bytes]:
    if number != MIDDLE:
        return [data]
    again = event(data)
    again.chunk.offset = 0
    return [again.SerializeToString()]


def without_its_end(_: int, data: bytes) -> Sequence[bytes]:
    return [] if event(data).HasField("finished") else [data]


def beyond_its_end(_: int, data: bytes) -> Sequence[bytes]:
    more = pb.GenerateResponse(chunk=pb.GenerationChunk(offset=0, text="more", token_ids=[1]))
    return [data, more.SerializeToString()] if event(data).HasField("finished") else [data]


# By name, and whether the engine has failed by it.
RUBBISH: dict[str, tuple[Change, bool]] = {
    "no message at first": (lambda n, data: [data] if n else [NO_MESSAGE], True),
    "no message in the middle": (in_the_middle(NO_MESSAGE), True),
    "a message too large": (in_the_middle(bytes(MAX_MESSAGE_BYTES + 1)), True),
    "a chunk left out": (in_the_middle(), True),
    "a chunk twice": (twice, True),
    "a chunk from the beginning": (from_the_beginning_again, True),
    "no end": (without_its_end, True),
    "more after the end": (beyond_its_end, True),
    "an event of a later version": (lambda _, data: [b"", data], False),
}


@pytest.mark.parametrize(("change", "fails"), RUBBISH.values(), ids=RUBBISH)
async def test_an_answer_that_arrives_spoilt_goes_on_elsewhere(change: Change, fails: bool) -> None:
    def spoil(method: str, number: int, data: bytes) -> Sequence[bytes]:
        return change(number, data) if method == "Generate" else [data]

    limits = OutlierLimits(failures=1, seconds=60)
    async with (
        engines(2, **PACED) as (one, other),
        spoilt(address(one), spoil) as broken,
        fleet_of(address(one)) as whole,
        fleet_of(broken.address, address(other), outliers=limits) as fleet,
    ):
        undisturbed = await draw(whole, max_tokens=TOKENS)
        counted = choices(fleet)
        chat = chat_at(fleet, broken.address)
        counted.clear()
        assert await draw(fleet, chat=chat, max_tokens=TOKENS) == undisturbed
        assert counted[broken.address] == 1
        assert fleet._outliers.ejected(broken.address) == fails


async def test_where_every_engine_sends_rubbish_the_answer_ends_as_lost() -> None:
    def spoil(method: str, number: int, data: bytes) -> Sequence[bytes]:
        return twice(number, data) if method == "Generate" else [data]

    async with (
        engines(1, **PACED) as (one,),
        spoilt(address(one), spoil) as broken,
        fleet_of(broken.address) as fleet,
    ):
        with pytest.raises(ServiceError) as lost:
            await draw(fleet, max_tokens=TOKENS)
    assert lost.value.code == "engine_lost"


@pytest.mark.parametrize("method", ["Watch", "ListModels", "WatchLoad"])
async def test_an_engine_of_which_nothing_is_known_gets_no_request(method: str) -> None:
    def spoil(called: str, _: int, data: bytes) -> Sequence[bytes]:
        return [NO_MESSAGE] if called == method else [data]

    async with (
        engines(2) as (one, other),
        spoilt(address(one), spoil) as broken,
        fleet_of(broken.address, address(other), expected=1) as fleet,
    ):
        counted = choices(fleet)
        for number in range(20):
            assert await draw(fleet, chat=f"chat-{number}")
        assert set(counted) == {address(other)}


@pytest.mark.parametrize(
    "counts",
    [NO_MESSAGE, b"", pb.CountTokensResponse(tokens=[1, 2, 3]).SerializeToString()],
    ids=["no message", "no counts", "too many"],
)
async def test_a_count_that_is_none_is_asked_for_elsewhere(counts: bytes) -> None:
    def spoil(called: str, _: int, data: bytes) -> Sequence[bytes]:
        return [counts] if called == "CountTokens" else [data]

    async with (
        engines(2) as (one, other),
        spoilt(address(one), spoil) as broken,
        fleet_of(broken.address, address(other)) as fleet,
    ):
        # The spoilt one looks the least loaded.
        busy = next(r for r in fleet._able("sim") if r.address == address(other))
        message = pb.ChatMessage(role=pb.ROLE_USER, content="some words")
        with busy.use():
            counted = await fleet.count_tokens("sim", [message], timeout=20)
        assert counted.tokens == (await count_at(address(other), message),)


async def count_at(engine: str, message: pb.ChatMessage) -> int:
    async with fleet_of(engine) as fleet:
        (tokens,) = (await fleet.count_tokens("sim", [message], timeout=20)).tokens
        return tokens


async def test_an_engine_that_answers_probes_with_rubbish_falls_out() -> None:
    spoiling = False

    def spoil(called: str, _: int, data: bytes) -> Sequence[bytes]:
        return [NO_MESSAGE] if spoiling and called == "Check" else [data]

    async with (
        engines(2) as (one, other),
        spoilt(address(one), spoil) as broken,
        fleet_of(broken.address, address(other)) as fleet,
    ):
        spoiling = True
        await until(lambda: [r.address for r in fleet._able("sim")] == [address(other)], 15.0)
        spoiling = False
        await until(lambda: len(fleet._able("sim")) == 2, 15.0)


async def test_a_port_that_speaks_no_grpc_is_no_engine() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 418 no\r\n\r\n" + bytes(range(256)) * 16)
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        engines(1) as (one,),
        fleet_of(address(one), f"127.0.0.1:{port}", expected=1) as fleet,
    ):
        for number in range(10):
            assert await draw(fleet, chat=f"chat-{number}")


async def test_a_slow_engine_gets_less_of_the_work_and_holds_nobody_up() -> None:
    async with (
        engines(1, sim_concurrency=4, sim_itl=0.1, sim_answer_tokens=8) as (slow,),
        engines(1, sim_concurrency=4, sim_itl=0.002, sim_answer_tokens=8) as (quick,),
        fleet_of(address(slow), address(quick), slow_start_seconds=0) as fleet,
    ):
        counted = choices(fleet)

        async def converse(chat: str) -> None:
            for _ in range(4):
                assert await draw(fleet, chat=chat)

        await asyncio.gather(*(converse(f"chat-{number}") for number in range(16)))
    assert counted[address(quick)] > counted[address(slow)]


async def test_what_kills_an_engine_ends_there_and_goes_on_elsewhere() -> None:
    async with (
        engines(2, sim_faults=True, **PACED) as (one, other),
        engines(1, **PACED) as (innocent,),
        fleet_of(address(innocent)) as whole,
        fleet_of(address(one), address(other)) as fleet,
    ):
        asked = ["[[sim:kill after=9]] go on", "and another"]
        undisturbed = [await draw(whole, text, max_tokens=TOKENS) for text in asked]
        chat = chat_at(fleet, address(one))
        bystander = asyncio.create_task(draw(fleet, asked[1], chat, max_tokens=TOKENS))
        await until(lambda: running(fleet) == 1)
        assert await draw(fleet, asked[0], chat, max_tokens=TOKENS) == undisturbed[0]
        assert await bystander == undisturbed[1]
        # It says itself that it is not ready.
        await until(lambda: not one.serving)
        await until(lambda: [r.address for r in fleet._able("sim")] == [address(other)])


def running(fleet: GrpcFleet) -> int:
    """Answers that the fleet's engines draw for it."""
    return sum(replica.inflight for replica in fleet._able("sim"))
