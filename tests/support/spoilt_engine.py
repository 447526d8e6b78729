"""An engine whose messages arrive spoilt: a gRPC proxy that hands bytes on as it is told.

It stands before a real replica, health and load reports included, and knows nothing of what
it carries; `spoil` is shown each message and says what is sent in its stead.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

# Given the method's name, the number of the message in its call and its bytes.
Spoil = Callable[[str, int, bytes], Sequence[bytes]]
_STREAMS = frozenset({"Generate", "WatchLoad", "Watch"})
_SECONDS = 30.0
# Nothing here bounds a message: what is tested is that others do.
_UNBOUNDED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class SpoiltEngine(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """The proxy, and its one handler for every method."""

    def __init__(self, target: str, spoil: Spoil) -> None:
        self.spoil = spoil
        self.address = ""
        # Of bytes both ways, which its types do not know.
        self._channel: Any = grpc.aio.insecure_channel(target, options=_UNBOUNDED)
        self._server = grpc.aio.server(options=_UNBOUNDED)
        self._server.add_generic_rpc_handlers((self,))

    async def start(self) -> None:
        """Serve on a free port."""
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def stop(self) -> None:
        """End at once."""
        await self._server.stop(None)
        await self._channel.close()

    def service(self, handler_call_details: Any) -> Any:
        """Give the handler of a method; bytes go in and out as they are."""
        path = handler_call_details.method
        name = path.rpartition("/")[2]
        if name not in _STREAMS:

            async def once(request: bytes, context: Any) -> bytes:
                call = self._channel.unary_unary(path)(request, timeout=_left(context))
                return b"".join(self.spoil(name, 0, await call))

            return grpc.unary_unary_rpc_method_handler(once)

        async def stream(request: bytes, context: Any) -> None:
            call = self._channel.unary_stream(path)(request, timeout=_left(context))
            number = 0
            try:
                async for message in call:
                    for each in self.spoil(name, number, message):
                        await context.write(each)
                    number += 1
            finally:
                call.cancel()

        return grpc.unary_stream_rpc_method_handler(stream)


def _left(context: Any) -> float:
    left = context.time_remaining()
    return _SECONDS if left is None else min(left, _SECONDS)


@contextlib.asynccontextmanager
async def spoilt(target: str, spoil: Spoil) -> AsyncIterator[SpoiltEngine]:
    """Run the proxy while the block runs."""
    engine = SpoiltEngine(target, spoil)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
