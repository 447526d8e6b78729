"""Calls between two ends: answers, errors, deadlines and cancellation."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from parley.inference.v1 import inference_pb2, inference_pb2_grpc

from parley_kit.errors import AddressInUse, FieldError, ServiceError, StartupError
from parley_kit.rpc.client import Stream, call_unary, method_name, open_channel, open_stream
from parley_kit.rpc.deadline import remaining
from parley_kit.rpc.health import LIVENESS
from parley_kit.rpc.server import RpcServer, RpcService
from support.echo import COUNT, SERVICE, echo_server, say_back, text
from support.poll import until
from support.ports import occupied_port

pytestmark = pytest.mark.integration

REFUSAL = ServiceError(
    grpc.StatusCode.INVALID_ARGUMENT,
    "invalid_request",
    "über",
    fields=[FieldError("options.stop", "too long")],
    metadata={"run_id": "r"},
    retry_after=1.5,
)


async def read(stream: Stream[StringValue]) -> list[str]:
    return [message.value async for message in stream]


async def test_a_unary_call_is_answered() -> None:
    async with echo_server() as echo:
        answer = await call_unary(echo.stub.Say, text("hello"), timeout=5)
        assert answer.value == "hello"


async def test_a_stream_arrives_whole_and_in_order() -> None:
    async with echo_server() as echo:
        numbers = await read(open_stream(echo.stub.Count, text("1000"), timeout=5))
        assert numbers == [str(number) for number in range(1000)]


async def test_a_handler_may_write_instead_of_yielding() -> None:
    async def count(_request: Any, context: Any) -> None:
        for word in "abc":
            await context.write(text(word))

    async with echo_server(count=count) as echo:
        assert await read(open_stream(echo.stub.Count, text(""), timeout=5)) == ["a", "b", "c"]


async def test_a_refusal_reaches_the_caller_whole() -> None:
    async def say(_request: Any, _context: Any) -> StringValue:
        raise REFUSAL

    async with echo_server(say) as echo:
        with pytest.raises(ServiceError) as caught:
            await call_unary(echo.stub.Say, text(""), timeout=5)
    assert str(caught.value) == str(REFUSAL)
    assert caught.value.fields == REFUSAL.fields
    assert caught.value.metadata == REFUSAL.metadata
    assert caught.value.retry_after == REFUSAL.retry_after


async def test_a_slow_reader_gets_every_message_before_the_error() -> None:
    async def count(_request: Any, _context: Any) -> AsyncIterator[StringValue]:
        for number in range(100):
            yield text(str(number))
        raise REFUSAL

    async with echo_server(count=count) as echo:
        stream = open_stream(echo.stub.Count, text(""), timeout=5)
        await until(lambda: echo.server.in_flight == 0)
        for number in range(100):
            assert (await anext(stream)).value == str(number)
        with pytest.raises(ServiceError, match="invalid_request"):
            await anext(stream)


async def test_a_defect_is_logged_once_and_its_words_stay_inside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def count(_request: Any, _context: Any) -> AsyncIterator[StringValue]:
        yield text("a")
        raise ValueError("the secret")

    async with echo_server(count=count) as echo:
        with pytest.raises(ServiceError) as caught:
            await read(open_stream(echo.stub.Count, text(""), timeout=5))
    assert (caught.value.status, caught.value.code) == (grpc.StatusCode.INTERNAL, "internal")
    assert "secret" not in str(caught.value)
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == [
        "parley_kit.rpc.interceptor"
    ]


async def test_a_handler_s_own_abort_passes() -> None:
    async def say(_request: Any, context: Any) -> StringValue:
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "no further")
        raise AssertionError

    async with echo_server(say) as echo:
        with pytest.raises(ServiceError) as caught:
            await call_unary(echo.stub.Say, text(""), timeout=5)
    assert (caught.value.status, caught.value.detail) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "no further",
    )


async def test_a_call_that_is_left_out_is_unimplemented() -> None:
    class Servicer(inference_pb2_grpc.InferenceServiceServicer):
        pass

    name = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
    register = inference_pb2_grpc.add_InferenceServiceServicer_to_server
    servicer = Servicer()  # type: ignore[abstract]
    service = RpcService(name, lambda server: register(servicer, server))
    server = RpcServer(host="127.0.0.1", port=0, services=[service])
    channel = open_channel(f"127.0.0.1:{await server.start()}")
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    with pytest.raises(ServiceError) as caught:
        await call_unary(stub.ListModels, inference_pb2.ListModelsRequest(), timeout=5)
    assert (caught.value.status, caught.value.code) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "unimplemented",
    )
    with pytest.raises(ServiceError, match="unimplemented"):
        await anext(open_stream(stub.Generate, inference_pb2.GenerateRequest(), timeout=5))
    await channel.close()
    await server.stop(0)


async def test_the_deadline_ends_the_call_on_both_ends() -> None:
    ended = asyncio.Event()

    async def say(request: StringValue, _context: Any) -> StringValue:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return request

    async with echo_server(say) as echo:
        with pytest.raises(ServiceError) as caught:
            await call_unary(echo.stub.Say, text(""), timeout=0.05)
        assert (caught.value.status, caught.value.code) == (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "timed_out",
        )
        await until(ended.is_set)


async def test_the_handler_sees_what_is_left_of_the_deadline() -> None:
    async def say(_request: Any, context: Any) -> StringValue:
        return text(str(remaining(context, 7.0)))

    async with echo_server(say) as echo:
        answer = await call_unary(echo.stub.Say, text(""), timeout=5)
        # The wire rounds it up a little.
        assert 0 < float(answer.value) < 6
        answer = await echo.stub.Say(text(""))
        assert float(answer.value) == 7.0


async def test_nobody_listening_is_unavailable() -> None:
    async with echo_server() as echo:
        await echo.server.stop(0)
        with pytest.raises(ServiceError) as caught:
            await call_unary(echo.stub.Say, text(""), timeout=5)
    assert (caught.value.status, caught.value.code) == (grpc.StatusCode.UNAVAILABLE, "unavailable")


async def test_a_message_over_the_bound_is_refused() -> None:
    async with echo_server(max_message_bytes=1000) as echo:
        with pytest.raises(ServiceError) as caught:
            await call_unary(echo.stub.Say, text("x" * 2000), timeout=5)
    assert caught.value.status is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stray_cancellation_inside_a_handler_is_a_defect_not_a_silence() -> None:
    async def say(request: StringValue, _context: Any) -> StringValue:
        inner = asyncio.create_task(asyncio.Event().wait())
        inner.cancel()
        await inner
        return request

    async with echo_server(say) as echo:
        with pytest.raises(ServiceError) as caught:
            await call_unary(echo.stub.Say, text(""), timeout=5)
    assert caught.value.status is grpc.StatusCode.INTERNAL


async def test_a_port_in_use_is_said_in_a_sentence() -> None:
    with occupied_port() as port:
        server = RpcServer(host="127.0.0.1", port=port, services=[])
        with pytest.raises(AddressInUse, match=f"127.0.0.1:{port}: the port is in use"):
            await server.start()
        with pytest.raises(OSError):
            await RpcServer(host="127.0.0.1", port=port, services=[]).start()


async def test_an_address_that_is_not_ours_is_said_in_a_sentence() -> None:
    with pytest.raises(StartupError, match=r"cannot listen on 192\.0\.2\.1"):
        await RpcServer(host="192.0.2.1", port=0, services=[]).start()


async def test_two_servers_never_share_a_port() -> None:
    async with echo_server() as echo:
        with pytest.raises(AddressInUse):
            await RpcServer(host="127.0.0.1", port=echo.port, services=[]).start()


@pytest.mark.parametrize("name", ["", SERVICE])
async def test_health_is_told_and_watched(name: str) -> None:
    status = health_pb2.HealthCheckResponse
    async with echo_server(serving=False) as echo:
        health = health_pb2_grpc.HealthStub(echo.channel)
        request = health_pb2.HealthCheckRequest(service=name)
        assert (await health.Check(request, timeout=5)).status == status.NOT_SERVING
        watch = health.Watch(request, timeout=5)
        assert (await watch.read()).status == status.NOT_SERVING
        echo.server.set_serving(True)
        assert (await watch.read()).status == status.SERVING
        stopping = asyncio.create_task(echo.server.stop(5))
        assert (await watch.read()).status == status.NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        await stopping


async def test_liveness_does_not_wait_for_readiness() -> None:
    status = health_pb2.HealthCheckResponse
    async with echo_server(serving=False) as echo:
        health = health_pb2_grpc.HealthStub(echo.channel)
        request = health_pb2.HealthCheckRequest(service=LIVENESS)
        assert (await health.Check(request, timeout=5)).status == status.SERVING
        echo.server.set_serving(True)
        assert (await health.Check(request, timeout=5)).status == status.SERVING


async def test_health_of_a_service_that_is_not_here() -> None:
    async with echo_server() as echo:
        health = health_pb2_grpc.HealthStub(echo.channel)
        request = health_pb2.HealthCheckRequest(service="nobody")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(request, timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health.Watch(request, timeout=5)
        status = (await watch.read()).status
        assert status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()


async def test_reflection_lists_the_services() -> None:
    async with echo_server() as echo:
        stub = reflection_pb2_grpc.ServerReflectionStub(echo.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([request]), timeout=5)
        response = await call.read()
        names = {service.name for service in response.list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names
        call.cancel()


async def test_stopping_waits_for_calls_and_no_longer() -> None:
    begun, finish = asyncio.Event(), asyncio.Event()

    async def say(request: StringValue, context: Any) -> StringValue:
        begun.set()
        await finish.wait()
        return await say_back(request, context)

    async with echo_server(say) as echo:
        call = asyncio.create_task(call_unary(echo.stub.Say, text("kept"), timeout=5))
        await begun.wait()
        stopping = asyncio.create_task(echo.server.stop(3600))
        await until(lambda: not echo.server.serving)
        finish.set()
        assert (await call).value == "kept"
        async with asyncio.timeout(5):
            await stopping


async def test_stopping_cancels_what_outlasts_the_grace() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def count(_request: Any, _context: Any) -> AsyncIterator[StringValue]:
        begun.set()
        try:
            yield text("a")
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with echo_server(count=count) as echo:
        stream = open_stream(echo.stub.Count, text(""), timeout=5)
        await begun.wait()
        await echo.server.stop(0.05)
        assert cancelled.is_set()
        with pytest.raises(ServiceError):
            await read(stream)


async def test_endless_streams_do_not_hold_up_stopping() -> None:
    async def count(_request: Any, _context: Any) -> AsyncIterator[StringValue]:
        yield text("a")
        await asyncio.Event().wait()

    async with echo_server(count=count, count_is_endless=True) as echo:
        stream = open_stream(echo.stub.Count, text(""), timeout=None)
        assert (await anext(stream)).value == "a"
        async with asyncio.timeout(5):
            await echo.server.stop(3600)
        with pytest.raises(ServiceError):
            await read(stream)


async def test_a_stub_s_attribute_knows_its_method() -> None:
    async with echo_server() as echo:
        assert method_name(echo.stub.Count) == COUNT
