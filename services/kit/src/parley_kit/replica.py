"""One replica of a service, as those that call it see it."""

import contextlib
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final, Generic, Protocol, cast

import grpc
import grpc.aio
from typing_extensions import TypeVar

from parley_kit.inflight import InFlight

T = TypeVar("T", default=None)

_READY: Final = grpc.ChannelConnectivity.READY
_FAILED: Final = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)

# Seconds that a replica whose connection ended in good order (its server bounds
# the age of connections) may still be picked while it is connected again.
_RECONNECT_GRACE: Final = 1.0


class _Call(Protocol):
    def add_done_callback(self, callback: Callable[[], None], /) -> None: ...

    def cancel(self) -> None: ...


class Replica(Generic[T]):
    """One replica: ``address`` (host:port), ``channel``, and what was attached to it."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.channel = channel
        self.attachment: T = cast(T, None)
        self.serving = False
        # What it said when it was asked last; a watch that only keeps quiet does not outweigh it.
        self.checked = False
        self.leaving = False
        self.silent = False
        self._state = grpc.ChannelConnectivity.IDLE
        self._lost_at = 0.0
        self._calls = InFlight()
        self._streams: set[_Call] = set()

    def __repr__(self) -> str:
        return f"<Replica {self.address} ready={self.ready} inflight={self.inflight}>"

    @property
    def inflight(self) -> int:
        """Calls in progress, as counted by ``use`` and ``track``."""
        return self._calls.count

    @property
    def ready(self) -> bool:
        """Whether it is connected, SERVING, at work, and not leaving."""
        return self.connected and self.serving and not self.silent and not self.leaving

    @property
    def connected(self) -> bool:
        """Whether its connection stands."""
        return self._state is _READY

    @property
    def reconnecting(self) -> bool:
        """Whether it was ready a moment ago and is likely to be so in another."""
        return (
            self.serving
            and not self.silent
            and not self.leaving
            and self._state not in _FAILED
            and monotonic() - self._lost_at < _RECONNECT_GRACE
        )

    @contextlib.contextmanager
    def use(self) -> Iterator["Replica[T]"]:
        """Count one call while the block lasts."""
        self._calls.enter()
        try:
            yield self
        finally:
            self._calls.leave()

    def track(self, stream: _Call) -> None:
        """Count one call until ``stream`` (an open ``Stream``) has ended.

        When the replica falls silent the stream is cancelled: ServiceError ``cancelled``.
        """

        def ended() -> None:
            self._streams.discard(stream)
            self._calls.leave()

        self._calls.enter()
        self._streams.add(stream)
        stream.add_done_callback(ended)

    def give_up(self) -> int:
        """Cancel the streams that are tracked; how many there were."""
        streams = list(self._streams)
        for stream in streams:
            stream.cancel()
        return len(streams)

    async def wait_idle(self) -> None:
        """Wait until no call is in progress."""
        await self._calls.wait_idle()

    def note_state(self, state: grpc.ChannelConnectivity) -> None:
        """Take note of the connection's state."""
        if self._state is _READY and state is not _READY:
            self._lost_at = monotonic()
        if state in _FAILED:
            # Whoever answers there next has to say anew that it is SERVING.
            self.serving = False
        self._state = state
