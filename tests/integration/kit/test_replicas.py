"""Replicas come, go, fail and come back; calls go where they are served."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from parley_kit.errors import NoReplica, ServiceError
from parley_kit.replicas import Replica, ReplicaSet, StaticResolver
from parley_kit.rpc.client import call_unary, open_stream
from support.echo import EchoStub, echo_server, echo_service, text
from support.poll import until
from support.ports import free_port
from support.resolvers import ListedResolver
from support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.integration


def address(port: int) -> str:
    return f"127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def replica_set(resolver: Any, **options: Any) -> AsyncIterator[ReplicaSet[EchoStub]]:
    replicas = ReplicaSet(
        resolver, name="echo", attach=lambda _address, channel: EchoStub(channel), **options
    )
    await replicas.start()
    try:
        yield replicas
    finally:
        await replicas.stop()


def nobody(replicas: ReplicaSet[EchoStub]) -> bool:
    try:
        replicas.pick()
    except NoReplica:
        return True
    return False


async def named(replicas: ReplicaSet[EchoStub], calls: int) -> Counter[str]:
    """Make calls one after the other; count the replicas they went to."""
    counted: Counter[str] = Counter()
    for _ in range(calls):
        replica = replicas.pick()
        with replica.use():
            await call_unary(replica.attachment.Say, text("x"), timeout=5)
        counted[replica.address] += 1
    return counted


@contextlib.asynccontextmanager
async def two_replicas() -> AsyncIterator[ReplicaSet[EchoStub]]:
    async with (
        echo_server() as a,
        echo_server() as b,
        replica_set(StaticResolver([address(a.port), address(b.port)])) as replicas,
    ):
        await until(lambda: len(replicas.ready()) == 2)
        yield replicas


async def test_all_replicas_get_traffic_and_a_new_one_too() -> None:
    async with echo_server() as a, echo_server() as b, echo_server() as c:
        resolver = ListedResolver(address(a.port), address(b.port))
        async with replica_set(resolver) as replicas:
            await until(lambda: len(replicas.ready()) == 2)
            assert set(await named(replicas, 100)) == {address(a.port), address(b.port)}
            resolver.set(address(a.port), address(b.port), address(c.port))
            await until(lambda: len(replicas.ready()) == 3)
            assert set(await named(replicas, 100)) == {
                address(a.port),
                address(b.port),
                address(c.port),
            }


async def test_the_busier_of_two_is_not_picked() -> None:
    async with two_replicas() as replicas:
        first = replicas.pick()
        with first.use(), first.use():
            assert all(replicas.pick() is not first for _ in range(50))
        assert first.inflight == 0


async def test_one_that_was_tried_can_be_excluded() -> None:
    async with two_replicas() as replicas:
        first = replicas.pick()
        second = replicas.pick(exclude=[first])
        assert first is not second
        with pytest.raises(NoReplica):
            replicas.pick(exclude=[first, second])


async def test_one_that_leaves_gets_no_new_call_and_finishes_those_it_has() -> None:
    finish = asyncio.Event()

    async def count(_request: Any, _context: Any) -> AsyncIterator[StringValue]:
        yield text("a")
        await finish.wait()
        yield text("b")

    detached: list[EchoStub] = []

    async def detach(stub: EchoStub) -> None:
        detached.append(stub)

    async with echo_server(count=count) as a, echo_server() as b:
        resolver = ListedResolver(address(a.port))
        async with replica_set(resolver, detach=detach) as replicas:
            await replicas.wait_ready(5)
            leaving = replicas.pick()
            stream = open_stream(leaving.attachment.Count, text(""), timeout=30)
            leaving.track(stream)
            assert (await anext(stream)).value == "a"
            assert leaving.inflight == 1
            resolver.set(address(b.port))
            await until(lambda: [r.address for r in replicas.ready()] == [address(b.port)])
            assert set(await named(replicas, 20)) == {address(b.port)}
            assert detached == []
            finish.set()
            assert [message.value async for message in stream] == ["b"]
            await until(lambda: detached == [leaving.attachment])
            assert leaving.inflight == 0


async def test_draining_is_bounded() -> None:
    async def count(_request: Any, _context: Any) -> AsyncIterator[StringValue]:
        yield text("a")
        await asyncio.Event().wait()

    async with echo_server(count=count) as a:
        resolver = ListedResolver(address(a.port))
        async with replica_set(resolver, drain_seconds=0.05) as replicas:
            await replicas.wait_ready(5)
            replica = replicas.pick()
            stream = open_stream(replica.attachment.Count, text(""), timeout=30)
            replica.track(stream)
            assert (await anext(stream)).value == "a"
            resolver.set()
            with pytest.raises(ServiceError):
                await anext(stream)
            await until(lambda: replica.inflight == 0)


async def test_connected_but_not_serving_is_not_ready() -> None:
    async with (
        echo_server(serving=False) as a,
        replica_set(StaticResolver([address(a.port)])) as replicas,
    ):
        await until(replicas.all)
        replica = replicas.all()[0]
        await replica.channel.channel_ready()
        with pytest.raises(TimeoutError):
            await replicas.wait_ready(0.1)
        with pytest.raises(NoReplica) as caught:
            replicas.pick()
        assert caught.value.status is grpc.StatusCode.UNAVAILABLE
        a.server.set_serving(True)
        await replicas.wait_ready(5)
        a.server.set_serving(False)
        await until(lambda: not replicas.ready())


async def test_one_that_dies_is_not_ready_until_it_is_back() -> None:
    port = free_port()
    async with replica_set(StaticResolver([address(port)])) as replicas:
        for _ in range(2):
            async with echo_server(port=port):
                await replicas.wait_ready(10)
                assert await named(replicas, 3) == {address(port): 3}
            # For a moment it may pass for one that is only connecting anew.
            await until(lambda: nobody(replicas))


async def test_one_behind_a_link_that_stalls_is_found_and_its_streams_are_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("parley_kit.replicas._PROBE_SECONDS", 0.05)
    monkeypatch.setattr("parley_kit.replicas._PROBE_TIMEOUT", 0.5)

    async def count_for_ever(request: Any, context: Any) -> AsyncIterator[StringValue]:
        yield text("1")
        await asyncio.Event().wait()

    async with (
        echo_server(count=count_for_ever) as server,
        TcpProxy(address(server.port)) as proxy,
        replica_set(StaticResolver([proxy.address])) as replicas,
    ):
        await replicas.wait_ready(5)
        replica = replicas.pick()
        stream = open_stream(replica.attachment.Count, text("2"), timeout=60)
        replica.track(stream)
        assert (await anext(stream)).value == "1"
        proxy.stall()
        with pytest.raises(ServiceError) as lost:
            await asyncio.wait_for(anext(stream), 5)
        assert lost.value.code == "cancelled"
        assert replica.inflight == 0
        assert nobody(replicas)
        proxy.heal()
        await replicas.wait_ready(5)
        assert replicas.pick() is replica


async def test_one_that_comes_back_unready_is_not_taken_for_ready() -> None:
    port = free_port()
    async with replica_set(StaticResolver([address(port)])) as replicas:
        async with echo_server(port=port):
            await replicas.wait_ready(10)
        await until(lambda: not replicas.all()[0].serving)
        async with echo_server(port=port, serving=False) as again:
            await replicas.all()[0].channel.channel_ready()
            assert not replicas.ready()
            again.server.set_serving(True)
            await replicas.wait_ready(10)


async def test_a_server_without_the_health_service_counts_as_serving() -> None:
    server = grpc.aio.server()
    echo_service().register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with replica_set(StaticResolver([address(port)])) as replicas:
        await replicas.wait_ready(5)
        assert await named(replicas, 1) == {address(port): 1}
    await server.stop(None)


async def test_a_server_whose_health_does_not_answer_is_not_ready() -> None:
    class Silent(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
        async def Watch(self, request: Any, context: Any) -> None:
            await asyncio.Event().wait()

    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Silent(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with replica_set(StaticResolver([address(port)])) as replicas:
        await until(replicas.all)
        await replicas.all()[0].channel.channel_ready()
        assert not replicas.ready()
    await server.stop(None)


class Stuck(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Says one thing to those who watch, once, and another to those who ask."""

    def __init__(self, watched: int, checked: int) -> None:
        self.watched = health_pb2.HealthCheckResponse(status=watched)
        self.checked = health_pb2.HealthCheckResponse(status=checked)
        self.checks = 0

    async def Watch(self, request: Any, context: Any) -> None:
        await context.write(self.watched)
        await asyncio.Event().wait()

    async def Check(self, request: Any, context: Any) -> Any:
        self.checks += 1
        return self.checked


@contextlib.asynccontextmanager
async def stuck_server(watched: int, checked: int) -> AsyncIterator[tuple[Stuck, str]]:
    server, servicer = grpc.aio.server(), Stuck(watched, checked)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield servicer, address(port)
    finally:
        await server.stop(None)


@pytest.mark.parametrize("serving", [True, False])
async def test_a_watch_that_missed_a_change_is_corrected(serving: bool) -> None:
    status = health_pb2.HealthCheckResponse
    told = (status.NOT_SERVING, status.SERVING)
    async with (
        stuck_server(told[not serving], told[serving]) as (server, at),
        replica_set(StaticResolver([at])) as replicas,
    ):
        await until(lambda: bool(replicas.ready()) is not serving, what="what the watch says")
        await until(lambda: bool(replicas.ready()) is serving, what="what the probe says")
        assert server.checks >= 2


@pytest.mark.parametrize("end", [RuntimeError("a defect"), asyncio.CancelledError()])
async def test_a_watch_that_ends_is_begun_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, end: BaseException
) -> None:
    watch, begun = ReplicaSet._watch_health, 0

    async def fails_once(self: ReplicaSet[EchoStub], replica: Replica[EchoStub]) -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise end
        await watch(self, replica)

    monkeypatch.setattr(ReplicaSet, "_watch_health", fails_once)
    async with echo_server() as a, replica_set(StaticResolver([address(a.port)])) as replicas:
        await replicas.wait_ready(10)
        assert begun == 2
    assert "the watch over a replica ended" in caplog.text


async def test_connections_that_grow_old_lose_no_call() -> None:
    async with (
        echo_server(max_connection_age=0.2, max_connection_age_grace=5) as a,
        replica_set(StaticResolver([address(a.port)])) as replicas,
    ):
        await replicas.wait_ready(5)
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.0
        while loop.time() < end:
            assert await named(replicas, 1) == {address(a.port): 1}


async def test_a_resolver_that_fails_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def __init__(self, inner: StaticResolver) -> None:
            self.tries = 0
            self.inner = inner

        async def watch(self) -> AsyncIterator[frozenset[str]]:
            self.tries += 1
            if self.tries == 1:
                raise ValueError("not now")
            async for found in self.inner.watch():
                yield found

    async with (
        echo_server() as a,
        replica_set(Failing(StaticResolver([address(a.port)]))) as replicas,
    ):
        await replicas.wait_ready(5)
    assert "a resolver failed" in caplog.text


async def test_stopping_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    async with echo_server() as a:
        async with replica_set(StaticResolver([address(a.port), "127.0.0.1:1"])) as replicas:
            await replicas.wait_ready(5)
            stream = open_stream(replicas.pick().attachment.Count, text("9"), timeout=30)
            assert (await anext(stream)).value == "0"
        assert replicas.ready() == []
    await until(lambda: asyncio.all_tasks() == before)


def test_a_replica_names_itself() -> None:
    replica: Replica[None] = Replica("a:1", channel=None)  # type: ignore[arg-type]
    assert repr(replica) == "<Replica a:1 ready=False inflight=0>"
