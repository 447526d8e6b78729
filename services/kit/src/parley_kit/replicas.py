"""The replicas of a service: which there are, which are ready, which to call.

A ``Resolver`` names the addresses. Each address gets a channel, whose
connection and grpc.health.v1 status are watched: a replica is ready while it is
connected and SERVING (a server without the health service counts as SERVING).
A connection may stand while nobody is at work behind it (a frozen process, a
link that stalls); gRPC's own keepalive was seen to take a minute to find out.
So each replica is also asked now and then: one that does not answer is not
ready, and the streams that it has are cancelled, for their callers to begin
again elsewhere. What it answers also corrects a watch that missed a change.
``pick`` takes the less busy of two drawn at random. A replica that its resolver
no longer names gets no new call; its channel is closed when the last one ends.
With TLS, a channel keeps the certificate that it was opened with. So when that changes,
each address gets a second channel, and is called by it once it is ready; the first one
is left as if its replica had gone.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Generic

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typing_extensions import TypeVar

from parley_kit.errors import NoReplica
from parley_kit.replica import Replica
from parley_kit.resolver import DnsResolver, Resolver, StaticResolver, parse_targets
from parley_kit.rpc.client import open_channel
from parley_kit.rpc.security import Security

__all__ = [
    "DnsResolver",
    "NoReplica",
    "Replica",
    "ReplicaSet",
    "Resolver",
    "StaticResolver",
    "parse_targets",
]

_log = logging.getLogger(__name__)

T = TypeVar("T", default=None)

_SERVING = health_pb2.HealthCheckResponse.SERVING

# Seconds for the first answer to a health watch, and between two tries.
_HEALTH_TIMEOUT = 2.0
_HEALTH_RETRY = 0.25
# Seconds between two questions to a server that has no health service.
_HEALTH_ABSENT_RETRY = 5.0
# A replica is asked so often whether it is at work, has so long to answer, and is
# silent when it missed so many questions running: one may be missed by a loop, its
# own or ours, that was held up.
_PROBE_SECONDS = 1.0
_PROBE_TIMEOUT = 2.0
_PROBE_MISSES = 2
# Answers running that are otherwise than what the health watch said last: then that watch is
# not believed. One may have crossed a change on its way.
_PROBE_DISAGREEMENTS = 2
# Seconds until a watch that ended is begun again.
_WATCH_RETRY = 1.0


class ReplicaSet(Generic[T]):
    """The replicas that a resolver names, with their readiness.

    ``name`` is for messages. ``attach(address, channel)`` makes what each
    replica carries (a stub, a load watcher) and must not block; ``detach`` is
    awaited before the channel is closed. ``drain_seconds`` bounds the wait for
    the calls of a replica that has left. ``security``, started before this: TLS.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        name: str = "the service",
        health_service: str = "",
        attach: Callable[[str, grpc.aio.Channel], T] | None = None,
        detach: Callable[[T], Awaitable[None]] | None = None,
        drain_seconds: float = 600.0,
        security: Security | None = None,
    ) -> None:
        self._resolver = resolver
        self._name = name
        self._health_service = health_service
        self._attach = attach
        self._detach = detach
        self._drain_seconds = drain_seconds
        self._security = security
        self._replicas: dict[str, Replica[T]] = {}
        self._monitors: dict[Replica[T], asyncio.Task[None]] = {}
        self._leaving: dict[Replica[T], asyncio.Task[None]] = {}
        self._renewals: dict[str, asyncio.Task[None]] = {}
        self._following: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Begin to follow the resolver. Does not wait for a replica: see ``wait_ready``."""
        if self._following is None:
            self._following = asyncio.create_task(self._follow())
            if self._security is not None:
                self._renewing = asyncio.create_task(self._renew_all(self._security))

    async def stop(self) -> None:
        """Close all channels; calls in progress are cancelled."""
        if self._following is not None:
            await _end(self._following)
            self._following = None
        if self._renewing is not None:
            await _end(self._renewing)
            self._renewing = None
        for task in [*self._renewals.values(), *self._leaving.values()]:
            await _end(task)
        for replica in list(self._replicas.values()):
            await self._close(replica)
        self._replicas.clear()
        self._notify()

    def all(self) -> list[Replica[T]]:
        """All replicas that the resolver names, ready or not."""
        return list(self._replicas.values())

    def ready(self) -> list[Replica[T]]:
        """The replicas that can take a call."""
        return [replica for replica in self._replicas.values() if replica.ready]

    def pick(self, *, exclude: Collection[Replica[T]] = ()) -> Replica[T]:
        """Choose a replica for a call: the less busy of two. Raises NoReplica.

        ``exclude``: those already tried. Count the call by ``Replica.use`` or
        ``Replica.track``, else every replica looks idle.
        """
        able = [replica for replica in self.ready() if replica not in exclude]
        if not able:
            able = [r for r in self._replicas.values() if r.reconnecting and r not in exclude]
        if not able:
            raise NoReplica(self._name)
        if len(able) == 1:
            return able[0]
        first, second = random.sample(able, 2)
        return first if first.inflight <= second.inflight else second

    async def wait_ready(self, timeout: float) -> None:
        """Wait until a replica is ready. Raises TimeoutError after ``timeout`` seconds."""
        async with asyncio.timeout(timeout):
            while not self.ready():
                await self.wait_changed()

    async def wait_changed(self) -> None:
        """Wait, without a bound of its own, until a replica comes, goes, or changes readiness."""
        await self._changed.wait()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _follow(self) -> None:
        while True:
            try:
                async for addresses in self._resolver.watch():
                    self._apply(addresses)
                return
            except Exception:  # noqa: BLE001 - a resolver is anybody's code
                _log.exception("a resolver failed; asking again", extra={"of": self._name})
                await asyncio.sleep(1.0)

    def _apply(self, addresses: frozenset[str]) -> None:
        for address in addresses - self._replicas.keys():
            self._replicas[address] = self._open(address)
        for address in self._replicas.keys() - addresses:
            self._leave(self._replicas.pop(address))
        self._notify()

    def _open(self, address: str) -> Replica[T]:
        channel = open_channel(
            address,
            security=self._security,
            server_name=self._resolver.server_name(address) if self._security else "",
        )
        replica: Replica[T] = Replica(address, channel)
        if self._attach is not None:
            replica.attachment = self._attach(address, channel)
        self._monitors[replica] = asyncio.create_task(self._monitor(replica))
        return replica

    def _leave(self, replica: Replica[T]) -> None:
        replica.leaving = True
        self._leaving[replica] = asyncio.create_task(self._drain(replica))

    async def _renew_all(self, security: Security) -> None:
        """Open new channels whenever there are new certificates."""
        generation = security.generation
        while True:
            await security.wait_newer(generation)
            generation = security.generation
            for address in list(self._replicas):
                if (earlier := self._renewals.get(address)) is not None:
                    await _end(earlier)
                self._renewals[address] = asyncio.create_task(self._renew(address))

    async def _renew(self, address: str) -> None:
        """Open another channel to an address; call it by that one once it is ready."""
        old, new = self._replicas.get(address), self._open(address)
        try:
            while old is not None and old.ready and not new.ready:
                await self.wait_changed()
            # Compared now: it may have been lost, or its address left, in the meantime.
            if old is not None and self._replicas.get(address) is old:
                self._replicas[address] = new
                self._leave(old)
                self._notify()
        finally:
            if self._renewals.get(address) is asyncio.current_task():
                del self._renewals[address]
            if self._replicas.get(address) is not new:
                await self._close(new)

    async def _monitor(self, replica: Replica[T]) -> None:
        """Watch a replica for as long as it is there, whatever becomes of one look-out."""
        while True:
            watches = {
                asyncio.create_task(watch(replica), name=f"{watch.__name__} {replica.address}")
                for watch in (self._watch_connection, self._watch_health, self._probe)
            }
            try:
                ended, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
                for watch in ended:
                    self._note_end(watch)
            finally:
                for watch in watches:
                    watch.cancel()
                await asyncio.wait(watches)
            await asyncio.sleep(_WATCH_RETRY)

    def _note_end(self, watch: asyncio.Task[None]) -> None:
        """None of them is meant to end; a library may raise what it does not tell of."""
        _log.error(
            "the watch over a replica ended; it is begun again",
            extra={"of": self._name, "watch": watch.get_name()},
            exc_info=None if watch.cancelled() else watch.exception(),
        )

    async def _watch_connection(self, replica: Replica[T]) -> None:
        while True:
            state = self._look_at_connection(replica)
            await replica.channel.wait_for_state_change(state)

    def _look_at_connection(self, replica: Replica[T]) -> grpc.ChannelConnectivity:
        state = replica.channel.get_state(try_to_connect=True)
        was_ready = replica.ready
        replica.note_state(state)
        if replica.ready is not was_ready:
            self._note_readiness(replica)
        return state

    async def _watch_health(self, replica: Replica[T]) -> None:
        stub = health_pb2_grpc.HealthStub(replica.channel)
        request = health_pb2.HealthCheckRequest(service=self._health_service)
        while True:
            pause = _HEALTH_RETRY
            call = stub.Watch(request, wait_for_ready=True)
            try:
                async with asyncio.timeout(_HEALTH_TIMEOUT):
                    response = await call.read()
                while response is not grpc.aio.EOF:
                    # None stands for what is no message: whoever sends it cannot serve.
                    serving = response is not None and response.status == _SERVING
                    self._set_serving(replica, serving)
                    response = await call.read()
            except TimeoutError:
                if not replica.checked:
                    self._set_serving(replica, False)
            except grpc.aio.AioRpcError as error:
                # Any other status: the connection went, and its state tells.
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    self._set_serving(replica, True)
                    pause = _HEALTH_ABSENT_RETRY
            finally:
                call.cancel()
            await asyncio.sleep(pause)

    async def _probe(self, replica: Replica[T]) -> None:
        """Ask a replica again and again whether it is at work, and ready."""
        stub = health_pb2_grpc.HealthStub(replica.channel)
        request = health_pb2.HealthCheckRequest(service=self._health_service)
        misses = disagreements = 0
        explained = False
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            # A change that nobody told of is seen here.
            self._look_at_connection(replica)
            serving: bool | None = None
            missed = False
            connected = replica.connected
            # With TLS, one that cannot be reached is asked as well: to hear why, once.
            if connected or (self._security is not None and not explained):
                try:
                    response = await stub.Check(request, timeout=_PROBE_TIMEOUT)
                    missed = response is None
                    serving = None if missed else response.status == _SERVING
                except grpc.aio.AioRpcError as error:
                    # Any other status is an answer, or the connection went.
                    missed = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                    if not connected and error.code() is grpc.StatusCode.UNAVAILABLE:
                        explained = True
                        self._explain(replica, error.details() or "")
                else:
                    explained = False
            replica.checked = serving is True
            missed = missed and connected
            misses = misses + 1 if missed else 0
            self._set_silent(replica, misses >= _PROBE_MISSES)
            disagrees = connected and serving is not None and serving is not replica.serving
            disagreements = disagreements + 1 if disagrees else 0
            if serving is not None and disagreements >= _PROBE_DISAGREEMENTS:
                self._set_serving(replica, serving)

    def _explain(self, replica: Replica[T], reason: str) -> None:
        _log.warning(
            "a replica cannot be reached",
            extra={"of": self._name, "address": replica.address, "reason": reason},
        )

    def _set_silent(self, replica: Replica[T], silent: bool) -> None:
        if silent is replica.silent:
            return
        was_ready = replica.ready
        replica.silent = silent
        if silent:
            _log.warning(
                "a replica does not answer; its calls are given up",
                extra={"of": self._name, "address": replica.address, "calls": replica.give_up()},
            )
        if replica.ready is not was_ready:
            self._note_readiness(replica)

    def _set_serving(self, replica: Replica[T], serving: bool) -> None:
        was_ready = replica.ready
        replica.serving = serving
        if replica.ready is not was_ready:
            self._note_readiness(replica)

    def _note_readiness(self, replica: Replica[T]) -> None:
        _log.info(
            "replica is %s",
            "ready" if replica.ready else "not ready",
            extra={"of": self._name, "address": replica.address},
        )
        self._notify()

    async def _drain(self, replica: Replica[T]) -> None:
        try:
            async with asyncio.timeout(self._drain_seconds):
                await replica.wait_idle()
        except TimeoutError:
            _log.warning(
                "closing the channel of a replica that left; calls are still in progress",
                extra={"address": replica.address, "inflight": replica.inflight},
            )
        finally:
            del self._leaving[replica]
            await self._close(replica)

    async def _close(self, replica: Replica[T]) -> None:
        await _end(self._monitors.pop(replica))
        if self._detach is not None:
            await self._detach(replica.attachment)
        await replica.channel.close()


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end; its failure is logged by whoever made it."""
    task.cancel()
    await asyncio.wait({task})
