"""A small gRPC service whose two calls a test supplies: ``Say`` (unary), ``Count`` (stream).

Messages are ``google.protobuf.StringValue``.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue

from parley_kit.rpc.client import open_channel
from parley_kit.rpc.server import RpcServer, RpcService

SERVICE = "kit.test.Echo"
SAY = f"{SERVICE}/Say"
COUNT = f"{SERVICE}/Count"

Handler = Callable[[StringValue, Any], Any]


async def say_back(request: StringValue, _context: Any) -> StringValue:
    """Answer with the request."""
    return request


async def count_up(request: StringValue, _context: Any) -> AsyncIterator[StringValue]:
    """Stream the numbers below the request's."""
    for number in range(int(request.value)):
        yield StringValue(value=str(number))


class EchoStub:
    """What a generated stub would be."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.Say: grpc.aio.UnaryUnaryMultiCallable[StringValue, StringValue] = channel.unary_unary(
            f"/{SAY}", StringValue.SerializeToString, StringValue.FromString
        )
        self.Count: grpc.aio.UnaryStreamMultiCallable[StringValue, StringValue] = (
            channel.unary_stream(f"/{COUNT}", StringValue.SerializeToString, StringValue.FromString)
        )


def echo_service(
    say: Handler = say_back, count: Handler = count_up, *, count_is_endless: bool = False
) -> RpcService:
    """Make the service of two handlers."""
    handlers = {
        "Say": grpc.unary_unary_rpc_method_handler(
            say, StringValue.FromString, StringValue.SerializeToString
        ),
        "Count": grpc.unary_stream_rpc_method_handler(
            count, StringValue.FromString, StringValue.SerializeToString
        ),
    }

    def register(server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    return RpcService(SERVICE, register, frozenset({"Count"} if count_is_endless else ()))


@dataclass
class EchoServer:
    """A running server, and a stub on a channel of its own."""

    server: RpcServer
    port: int
    channel: grpc.aio.Channel
    stub: EchoStub


@contextlib.asynccontextmanager
async def echo_server(
    say: Handler = say_back,
    count: Handler = count_up,
    *,
    count_is_endless: bool = False,
    port: int = 0,
    serving: bool = True,
    **options: Any,
) -> AsyncIterator[EchoServer]:
    """Serve the two handlers on loopback."""
    service = echo_service(say, count, count_is_endless=count_is_endless)
    server = RpcServer(host="127.0.0.1", port=port, services=[service], **options)
    bound = await server.start()
    server.set_serving(serving)
    channel = open_channel(f"127.0.0.1:{bound}")
    try:
        yield EchoServer(server, bound, channel, EchoStub(channel))
    finally:
        await channel.close()
        await server.stop(0)


def text(value: str) -> StringValue:
    """Make a message."""
    return StringValue(value=value)
