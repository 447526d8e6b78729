"""A platform that is there to be hurt: replicas of everything, a fault proxy on every link.

Times are short, so that what takes long in production is over in seconds: a lease of 3 s,
a beat every second, a sweep every half second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from parley_devstack.process import State
from parley_devstack.stack import Stack
from support.evidence import queued, unended
from support.footprints import UNCOUNTED, Footprints, footprint, nothing_left
from support.poll import until
from support.stack import sim_config
from support.tcp_proxy import TcpProxy

GATEWAYS, SESSIONS = 2, 3
LEASE_SECONDS = 3.0
LOG_TTL_SECONDS = 900.0
# Seconds between two tokens: an answer of 90 lasts nine seconds.
ITL = 0.1
REST_SECONDS = 60.0

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "inference": {
        "PARLEY_INFERENCE_SIM_TTFT": "0.05",
        "PARLEY_INFERENCE_SIM_ITL": str(ITL),
    },
    "session": {
        "PARLEY_SESSION_LEASE_SECONDS": str(LEASE_SECONDS),
        "PARLEY_SESSION_SWEEP_SECONDS": "0.5",
        "PARLEY_SESSION_HOUSEKEEPING_SECONDS": "2",
        "PARLEY_SESSION_LOG_TTL_SECONDS": str(LOG_TTL_SECONDS),
        "PARLEY_SESSION_SHUTDOWN_GRACE_SECONDS": "10",
    },
    "gateway": {"PARLEY_GATEWAY_HEARTBEAT_SECONDS": "1"},
}
# Everything that has an admin port, and of these what makes answers and says whether it rests.
SERVICES = ("gateway", "session", "worker", "cache", "inference")
BUSY = ("gateway", "session", "worker", "inference")
# Gauges that are 0 when nobody asks anything.
AT_REST = (
    "parley_gateway_open_answers",
    "parley_session_live_runs",
    "parley_session_log_followers",
    "parley_inference_running",
    "parley_inference_waiting",
)
# Calls that last as long as the processes do.
STANDING_CALLS = ("WatchLoad", "Health/Watch")

Gauges = dict[str, float]


@dataclass(slots=True)
class FaultStack:
    """Starts with `start`. `links`: proxies by what they lead to, "valkey", "session-1", …"""

    folder: Path
    # "sim" or "vllm", and how many of it.
    engine: str = "sim"
    engines: int = 2
    model: str = ""  # a folder; "" = the devstack's own
    workers: int = 0
    # Settings of single parts, beside those of all.
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    links: dict[str, list[TcpProxy]] = field(default_factory=dict)
    _exits: AsyncExitStack = field(default_factory=AsyncExitStack)
    _stack: Stack | None = None
    _before: Footprints = field(default_factory=dict)

    @property
    def stack(self) -> Stack:
        """The processes."""
        assert self._stack is not None
        return self._stack

    @property
    def urls(self) -> list[str]:
        """The gateways, through their proxies."""
        names = self.stack.names_of("gateway")
        return [f"http://{self.links[name][0].address}" for name in names]

    async def start(self) -> None:
        """Start the proxies, then the processes, which know each other by the proxies."""
        gateways = await self._proxies("gateway", GATEWAYS)
        sessions = await self._proxies("session", SESSIONS)
        engines = await self._proxies("inference", self.engines)
        (cache,) = await self._proxies("cache", 1)
        env: dict[str, dict[str, str]] = {kind: dict(given) for kind, given in SETTINGS.items()}
        env["gateway"]["PARLEY_GATEWAY_SESSION_TARGETS"] = _targets(sessions)
        env["session"]["PARLEY_SESSION_INFERENCE_TARGETS"] = _targets(engines)
        env["session"]["PARLEY_SESSION_CACHE_TARGETS"] = cache.address
        stores: dict[str, list[TcpProxy]] = {"valkey": [], "mongodb": []}
        makers = [f"session-{number + 1}" for number in range(SESSIONS)]
        makers += [f"worker-{number + 1}" for number in range(self.workers)]
        for name in makers:
            # Each has its own way to the stores, so that one alone can be cut off.
            valkey, mongodb = await self._proxy(), await self._proxy()
            stores["valkey"].append(valkey)
            stores["mongodb"].append(mongodb)
            env[name] = {
                "PARLEY_SESSION_LOG_REDIS_URL": f"redis://{valkey.address}/0",
                "PARLEY_SESSION_MONGODB_URI": f"mongodb://{mongodb.address}/",
                **self.settings.get(name, {}),
            }
            self.links[f"{name} to valkey"] = [valkey]
            self.links[f"{name} to mongodb"] = [mongodb]
        self.links.update(stores)
        self._stack = Stack(
            sim_config(
                self.folder,
                gateways=GATEWAYS,
                sessions=SESSIONS,
                workers=self.workers,
                engine=self.engine,
                model=self.model,
                engines=self.engines,
                persistent=False,
                env=env,
                start_seconds=400.0 if self.engine == "vllm" else 120.0,
            )
        )
        for kind, proxies in (
            ("gateway", gateways),
            ("session", sessions),
            ("inference", engines),
            ("cache", [cache]),
        ):
            for number, proxy in enumerate(proxies):
                proxy.target = self.stack.plan(f"{kind}-{number + 1}").address
        for name, proxies in stores.items():
            for proxy in proxies:
                proxy.target = self.stack.plan(name).address
        self._exits.push_async_callback(self.stack.stop)
        await self.stack.start()

    async def stop(self) -> None:
        """End everything."""
        await self._exits.aclose()

    async def _proxy(self) -> TcpProxy:
        return await self._exits.enter_async_context(TcpProxy())

    async def _proxies(self, kind: str, count: int) -> list[TcpProxy]:
        made = [await self._proxy() for _ in range(count)]
        for number, proxy in enumerate(made):
            self.links[f"{kind}-{number + 1}"] = [proxy]
        return made

    def heal_links(self) -> None:
        """Let everything pass everywhere."""
        for proxies in self.links.values():
            for proxy in proxies:
                proxy.heal()

    async def mend(self) -> None:
        """Make everything whole, and take note of what is held then."""
        self.heal_links()
        for name in self.stack.names:
            if self.stack.state(name) is State.PAUSED:
                await self.stack.resume(name)
            elif self.stack.state(name) in (State.STOPPED, State.DIED):
                await self.stack.start_one(name)
        await self.come_to_rest()
        await self.remember_footprints()

    # looking ----------------------------------------------------------------------

    async def metrics(self, name: str) -> Gauges:
        """One part's samples, by name with labels."""
        url = f"http://{self.stack.plan(name).admin}/metrics"
        # There is no TLS, and a context for it is dear.
        async with httpx.AsyncClient(timeout=10, trust_env=False, verify=False) as http:
            answer = await http.get(url)
        lines = (line for line in answer.text.splitlines() if line and line[0] != "#")
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    async def counters(self) -> dict[int, Gauges]:
        """The samples of all services, by pid: those of a new process begin at 0."""
        names = self._names(*BUSY)
        found = await asyncio.gather(*map(self.metrics, names))
        return {self.stack.pid(n) or 0: each for n, each in zip(names, found, strict=True)}

    async def growth(
        self, kind: str, sample: str, label: str, before: Mapping[int, Gauges]
    ) -> float:
        """By how much a counter has grown, over the replicas of a kind and its labels.

        `label`: only where it has this one, as `why="hint"`.
        """
        pids = {self.stack.pid(name) for name in self.stack.names_of(kind)}
        return sum(
            value - before.get(pid, {}).get(name, 0.0)
            for pid, samples in (await self.counters()).items()
            for name, value in samples.items()
            if pid in pids and _is(name, sample) and label in name
        )

    def log_lines(self, name: str, text: str) -> list[str]:
        """The lines of a part's log that have this text."""
        lines = self.stack.plan(name).log.read_text(errors="replace").splitlines()
        return [line for line in lines if text in line]

    async def come_to_rest(self) -> None:
        """Wait until nothing is in progress: no run, no turn, no call, no stream."""

        async def resting() -> bool:
            left = await self.in_progress()
            assert not left, left
            return True

        await until(resting, timeout=REST_SECONDS, what="everything at rest")

    async def in_progress(self) -> dict[str, Any]:
        """What is in progress, by part."""
        left: dict[str, Any] = {}
        if runs := await unended(self.stack.mongodb_uri):
            left["mongodb"] = runs
        if keys := await queued(self.stack.redis_url):
            left["queue"] = keys
        names = self._names(*BUSY)
        for name, samples in zip(
            names, await asyncio.gather(*map(self.metrics, names)), strict=True
        ):
            busy = {sample: value for sample, value in samples.items() if value and _busy(sample)}
            if busy:
                left[name] = busy
        return left

    def _names(self, *kinds: str) -> list[str]:
        return [name for kind in kinds for name in self.stack.names_of(kind)]

    # what processes hold ------------------------------------------------------------

    async def footprints(self) -> Footprints:
        """What each service holds now. Stores hold others' connections, which are bounded."""
        names = self._names(*SERVICES)
        found = {}
        for name, samples in zip(
            names, await asyncio.gather(*map(self.metrics, names)), strict=True
        ):
            pid = self.stack.pid(name)
            assert pid is not None
            found[name] = footprint(pid, samples, self._ports())
        return found

    def _ports(self) -> dict[int, str]:
        """What listens on the ports that parts connect to."""
        ports = {
            _port(proxy.address): name.rpartition(" ")[2]
            for name, proxies in self.links.items()
            for proxy in proxies
        }
        # The cache has its way to the stores without a proxy.
        ports |= {_port(self.stack.plan(name).address): name for name in ("valkey", "mongodb")}
        admin = (self.stack.plan(name).admin for name in self._names(*SERVICES))
        return ports | {_port(each): UNCOUNTED for each in admin}

    async def remember_footprints(self) -> None:
        """Take note of what is held now, after a first crowd has filled the pools."""
        self._before = await self.footprints()

    async def let_go(self) -> None:
        """Wait until nothing more is held than before. Raises AssertionError with what is."""
        await nothing_left(self._before, self.footprints)


def _targets(proxies: list[TcpProxy]) -> str:
    return ",".join(proxy.address for proxy in proxies)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _is(sample: str, name: str) -> bool:
    return sample == name or sample.startswith(name + "{")


def _busy(sample: str) -> bool:
    if any(_is(sample, gauge) for gauge in AT_REST):
        return True
    in_flight = _is(sample, "parley_rpc_server_in_flight")
    return in_flight and not any(call in sample for call in STANDING_CALLS)
