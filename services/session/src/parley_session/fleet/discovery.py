"""Engines as Kubernetes knows them: the EndpointSlices of a Service, watched.

The `kubernetes` client blocks, so a thread lists and watches, and hands the newest set of
addresses over to the event loop: one place, in which a newer set replaces one that was not
taken yet. Listing gives the truth and a version, the watch goes on from there; when the API
server has forgotten that version (410 Gone), and every few minutes in any case, it is listed
anew. While the API server is away, or answers nonsense, the last known set stands.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from time import monotonic

from parley_session import metrics
from parley_session.fleet.endpoint_slices import Slice, addresses_of
from parley_session.fleet.slices_api import (
    ApiTimes,
    Away,
    Event,
    Gone,
    KubernetesSlices,
    SlicesApi,
)

_log = logging.getLogger(__name__)

Publish = Callable[[frozenset[str]], None]
Connect = Callable[[], SlicesApi]


@dataclass(frozen=True, slots=True)
class WatchTimes:
    """Bounds of the watch, seconds."""

    api: ApiTimes = field(default_factory=ApiTimes)
    # Between two tries after a failure: doubled from the first to the second.
    first_pause: float = 0.5
    longest_pause: float = 10.0
    resync: float = 300.0


class ServiceResolver:
    """Implements kit's `Resolver` for one Service. `port`: a name or a number.

    `namespace`: empty means the process's own. An empty set is what the API server may well
    say (scaled to nothing). `connect`: another way to the API server, for tests.
    """

    def __init__(
        self,
        service: str,
        namespace: str,
        port: str,
        *,
        times: WatchTimes | None = None,
        connect: Connect | None = None,
    ) -> None:
        self.service = service
        self.namespace = namespace
        self.port = port
        self._times = times or WatchTimes()
        self._connect = connect or self._kubernetes

    async def watch(self) -> AsyncIterator[frozenset[str]]:
        """Yield the addresses when they change; never ends."""
        loop = asyncio.get_running_loop()
        newest: asyncio.Queue[frozenset[str]] = asyncio.Queue(maxsize=1)

        def put(found: frozenset[str]) -> None:
            if newest.full():
                newest.get_nowait()
            newest.put_nowait(found)

        def publish(found: frozenset[str]) -> None:
            try:
                loop.call_soon_threadsafe(put, found)
            except RuntimeError:
                # The loop is closed: nobody wants to know.
                watcher.stop()

        watcher = Watcher(self.service, self.port, self._connect, self._times, publish)
        name = f"endpoints of {self.service}"
        threading.Thread(target=watcher.run, name=name, daemon=True).start()
        try:
            known: frozenset[str] | None = None
            while True:
                found = await newest.get()
                if found != known:
                    known = found
                    yield found
        finally:
            watcher.stop()

    def server_name(self, address: str) -> str:  # noqa: ARG002 - all go by one name
        """Return `service.namespace.svc`, or `service` where the namespace is one's own."""
        return f"{self.service}.{self.namespace}.svc" if self.namespace else self.service

    def _kubernetes(self) -> SlicesApi:
        return KubernetesSlices(self.service, self.namespace, self._times.api)


class Watcher:
    """The thread's part: lists, watches, publishes; ends soon after `stop`."""

    def __init__(
        self, service: str, port: str, connect: Connect, times: WatchTimes, publish: Publish
    ) -> None:
        self._service = service
        self._port = port
        self._connect = connect
        self._times = times
        self._publish = publish
        self._stopping = threading.Event()
        self._api: SlicesApi | None = None
        self._slices: dict[str, Slice] = {}
        self._version = ""

    def stop(self) -> None:
        """End the thread; does not wait for it. May be called from any thread."""
        self._stopping.set()
        if self._api is not None:
            self._api.interrupt()

    def run(self) -> None:
        """List and watch until stopped."""
        pause = self._times.first_pause
        while not self._stopping.is_set():
            began = monotonic()
            try:
                self._follow()
            except Gone:
                metrics.DISCOVERY_FAILURES.labels("gone").inc()
                self._wait(self._times.first_pause)
            except Exception as error:  # noqa: BLE001 - whatever it is, the known set stands
                if self._stopping.is_set():
                    return
                self._note(error)
                # What it was connected with may be out of date (address, token).
                self._api = None
                if monotonic() - began > self._times.longest_pause:
                    pause = self._times.first_pause
                self._wait(pause)
                pause = min(2 * pause, self._times.longest_pause)

    def _wait(self, seconds: float) -> None:
        self._stopping.wait(seconds * random.uniform(0.5, 1.0))  # noqa: S311

    def _note(self, error: Exception) -> None:
        facts = {"service": self._service, "reason": str(error) or type(error).__name__}
        metrics.DISCOVERY_FAILURES.labels("away" if isinstance(error, Away) else "defect").inc()
        if isinstance(error, Away):
            _log.warning("no word from the API server; the known engines stand", extra=facts)
        else:
            _log.error("discovery failed; the known engines stand", extra=facts, exc_info=error)

    def _follow(self) -> None:
        """List, then watch until it is time to list anew."""
        if self._api is None:
            self._api = self._connect()
        listed, self._version = self._api.list()
        self._slices = {_name(item): item for item in listed}
        self._tell()
        until = monotonic() + self._times.resync
        while not self._stopping.is_set() and monotonic() < until:
            for event in self._api.watch(self._version):
                if self._stopping.is_set():
                    return
                self._take(event)

    def _take(self, event: Event) -> None:
        kind, item = event["type"], event["object"]
        self._version = item["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        if kind == "DELETED":
            self._slices.pop(_name(item), None)
        else:
            self._slices[_name(item)] = item
        self._tell()

    def _tell(self) -> None:
        found = addresses_of(list(self._slices.values()), self._port)
        metrics.DISCOVERED_ENGINES.labels(self._service).set(len(found))
        self._publish(found)


def _name(item: Slice) -> str:
    name: str = item["metadata"]["name"]
    return name
