"""Which processes a stack has, and how they find each other.

Valkey, MongoDB and the engines need nobody; the cache needs Valkey; session needs them
all; the gateways need session.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from itertools import chain

from parley_devstack import stores
from parley_devstack.config import SMOLLM2, StackConfig
from parley_devstack.embedding_model import embedding_folder, is_named, is_there
from parley_devstack.ports import LOOPBACK, free_ports
from parley_devstack.preflight import has_gpu
from parley_devstack.process import Plan

# Services, each after those that it needs.
KINDS = ("inference", "cache", "session", "worker", "gateway")
# A worker is a session replica without a face, and is told the same.
MODULES = {"worker": "parley_session.worker"}
PROBE_SECONDS = 2.0
# Whoever sets this is asked no more.
COMPILE = "PARLEY_INFERENCE_COMPILE"
VLLM_NOTE = "loading the model: a minute or two the first time"


@dataclass(frozen=True, slots=True)
class Layout:
    """The plans of a stack, and the names of those that wait for `add`.

    `stages`: each needs those before it, and is ended before them.
    """

    stages: tuple[tuple[Plan, ...], ...]
    spare: frozenset[str]
    gateway_urls: tuple[str, ...]

    def plans(self) -> Iterator[Plan]:
        """Yields every plan, each after those that it needs."""
        for stage in self.stages:
            yield from stage

    def waves(self) -> Iterator[list[str]]:
        """Yields the names of what starts together, spares aside: two stages at a time.

        A cache waits for its store, and a gateway for its sessions. But a session whose
        engines are not ready yet refuses what it is asked.
        """
        for first in range(0, len(self.stages), 2):
            plans = chain.from_iterable(self.stages[first : first + 2])
            yield [plan.name for plan in plans if plan.name not in self.spare]


def lay_out(config: StackConfig) -> Layout:
    """Chooses every address and returns what is to be started."""
    return _Planner(config).layout()


class _Planner:
    def __init__(self, config: StackConfig) -> None:
        self._config = config
        self._spare: set[str] = set()
        count = 2 * sum(map(self._count, KINDS)) + 2
        self._ports = iter(free_ports(count))
        self._names = {
            kind: [f"{kind}-{number + 1}" for number in range(self._count(kind))] for kind in KINDS
        }
        self._grpc = {
            name: self._address()
            for kind in ("inference", "cache", "session", "worker")
            for name in self._names[kind]
        }

    def _count(self, kind: str) -> int:
        config = self._config
        asked = {
            "inference": config.engines,
            "cache": config.caches,
            "session": config.sessions,
            "worker": config.workers,
            "gateway": config.gateways,
        }[kind]
        return asked + config.spare.get(kind, 0)

    def _address(self) -> str:
        return f"{LOOPBACK}:{next(self._ports)}"

    def layout(self) -> Layout:
        config = self._config
        stored: list[Plan] = []
        redis_url, mongodb_uri = config.redis_url, config.mongodb_uri
        if not redis_url:
            valkey = self._valkey()
            redis_url = f"redis://{valkey.http}/0"
            stored.append(valkey)
        if not mongodb_uri:
            mongodb = self._mongodb()
            mongodb_uri = f"mongodb://{mongodb.http}/"
            stored.append(mongodb)
        engines = self._services("inference", self._inference_env())
        caches = self._services("cache", self._cache_env(redis_url))
        session_env = self._session_env(redis_url, mongodb_uri)
        sessions = (
            *self._services("session", session_env),
            *self._services("worker", session_env),
        )
        gateways = self._services("gateway", self._gateway_env())
        return Layout(
            stages=((*stored, *engines), caches, sessions, gateways),
            spare=frozenset(self._spare),
            gateway_urls=tuple(f"http://{plan.http}" for plan in gateways),
        )

    def _targets(self, kind: str) -> str:
        return ",".join(self._grpc[name] for name in self._names[kind])

    def _inference_env(self) -> Mapping[str, str]:
        config = self._config
        model, model_id = config.model, config.model_id
        if config.engine == "vllm" and not model:
            model = str(config.paths.models / SMOLLM2)
            model_id = model_id or SMOLLM2
        settings = {"ENGINE": config.engine, "MODEL": model, "MODEL_ID": model_id}
        if config.engine == "vllm" and not has_gpu() and COMPILE not in os.environ:
            # With AVX-512 and a C++ compiler it would: for minutes, on a core or two.
            settings["COMPILE"] = "off"
        if config.engine == "openai":
            settings["UPSTREAM_URL"] = config.upstream
            settings["UPSTREAM_API_KEY_FILE"] = str(config.upstream_key_file or "")
        return {name: value for name, value in settings.items() if value}

    def _cache_env(self, redis_url: str) -> Mapping[str, str]:
        settings = {"REDIS_URL": redis_url}
        folder = embedding_folder(self._config.paths)
        if not is_named(os.environ) and is_there(folder):
            settings["EMBEDDING_MODEL"] = str(folder)
        return settings

    def _session_env(self, redis_url: str, mongodb_uri: str) -> Mapping[str, str]:
        return {
            "MONGODB_URI": mongodb_uri,
            "MONGODB_DATABASE": self._config.mongodb_database,
            "LOG_REDIS_URL": redis_url,
            "CACHE_TARGETS": self._targets("cache"),
            "INFERENCE_TARGETS": self._targets("inference"),
        }

    def _gateway_env(self) -> Mapping[str, str]:
        settings = {"SESSION_TARGETS": self._targets("session"), "AUTH": self._config.auth}
        if self._config.auth == "keys":
            settings["KEYS_FILE"] = str(self._config.data_dir / "keys.json")
        return settings

    def _services(self, kind: str, settings: Mapping[str, str]) -> tuple[Plan, ...]:
        plans = []
        spare = self._config.spare.get(kind, 0)
        for number, name in enumerate(self._names[kind]):
            if number >= len(self._names[kind]) - spare:
                self._spare.add(name)
            address = self._grpc.get(name) or self._gateway_address(number)
            plans.append(self._service(kind, name, address, settings))
        return tuple(plans)

    def _gateway_address(self, number: int) -> str:
        if not self._config.port:
            return self._address()
        return f"{self._config.host}:{self._config.port + number}"

    def _service(self, kind: str, name: str, address: str, settings: Mapping[str, str]) -> Plan:
        config = self._config
        admin = self._address()
        serving = dict(zip(("HOST", "PORT"), address.rsplit(":", 1), strict=True))
        administering = dict(zip(("ADMIN_HOST", "ADMIN_PORT"), admin.rsplit(":", 1), strict=True))
        own = {**settings, **serving, **administering, "OTLP_ENDPOINT": config.otlp_endpoint}
        settings_of = "session" if kind == "worker" else kind
        prefix = f"PARLEY_{settings_of.upper()}_"
        http = address if kind == "gateway" else ""
        return Plan(
            name=name,
            kind=kind,
            command=(config.python_of(kind), "-m", MODULES.get(kind, f"parley_{kind}")),
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                **self._engine_folders(kind),
                **{prefix + key: value for key, value in own.items()},
                **config.env.get(settings_of, {}),
                **config.env.get(kind, {}),
                **config.env.get(name, {}),
            },
            log=config.logs_dir / f"{name}.log",
            cwd=config.paths.root,
            ready=_readyz(http or admin),
            grpc="" if http or kind == "worker" else address,
            http=http,
            admin=admin,
            note=VLLM_NOTE if kind == "inference" and config.engine == "vllm" else "",
        )

    def _engine_folders(self, kind: str) -> Mapping[str, str]:
        """What vLLM compiles is kept in the checkout, so that a second start is a fast one."""
        if kind != "inference" or self._config.engine != "vllm" or "VLLM_CACHE_ROOT" in os.environ:
            return {}
        return {"VLLM_CACHE_ROOT": str(self._config.paths.home / "cache" / "vllm")}

    def _valkey(self) -> Plan:
        data = self._config.data_dir / "valkey"
        data.mkdir(parents=True, exist_ok=True)
        port = next(self._ports)
        persistent = self._config.persistent
        return self._store(
            "valkey",
            port,
            stores.valkey_command(LOOPBACK, port, data, persistent=persistent),
            lambda: stores.answers_ping(LOOPBACK, port),
        )

    def _mongodb(self) -> Plan:
        data = self._config.data_dir / "mongodb"
        data.mkdir(parents=True, exist_ok=True)
        port = next(self._ports)
        if mongod := stores.mongod_path():
            command = stores.mongod_command(mongod, LOOPBACK, port, data)
        else:
            command = [
                *stores.mongo_stand_in_command(LOOPBACK, port, data, self._config.paths.jars),
                *("--database", self._config.mongodb_database),
            ]
        return self._store("mongodb", port, command, lambda: stores.accepts(LOOPBACK, port))

    def _store(self, name: str, port: int, command: list[str], ready: Callable[[], bool]) -> Plan:
        return Plan(
            name=name,
            kind=name,
            command=command,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            log=self._config.logs_dir / f"{name}.log",
            cwd=self._config.paths.root,
            ready=ready,
            http=f"{LOOPBACK}:{port}",
        )


def _readyz(address: str) -> Callable[[], bool]:
    """Returns a look at `/readyz`: plain, for it is taken many times while others start."""

    def ready() -> bool:
        connection = HTTPConnection(address, timeout=PROBE_SECONDS)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    return ready
