"""Engines found by watching EndpointSlices on a real API server."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from parley_kit.resolver import Resolver
from parley_session import metrics
from parley_session.fleet.discovery import ServiceResolver, WatchTimes
from parley_session.fleet.grpc_fleet import GrpcFleet
from parley_session.fleet.slices_api import ApiTimes, KubernetesSlices
from parley_session.fleet.targets import engine_targets
from support.inference import sim_replica
from support.kube import SERVICE, Kube, started
from support.poll import until
from support.ports import own_address

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
]

TIMES = WatchTimes(
    api=ApiTimes(connect=1.0, listing=2.0, window=2.0, grace=1.0),
    first_pause=0.05,
    longest_pause=0.5,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kube(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kube]:
    async with started(tmp_path_factory.mktemp("kube")) as running:
        yield running


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def clean(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("KUBECONFIG", str(kube.write_kubeconfig()))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kube.kubeconfig)
    )
    yield
    assert kube.client is not None
    await kube.client.delete("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices")


class Watching:
    """What a resolver has said last, and how often it spoke."""

    def __init__(self) -> None:
        self.found: frozenset[str] | None = None
        self.times = 0

    def is_now(self, *hosts: str) -> bool:
        return self.found == frozenset(f"{host}:50053" for host in hosts)


@contextlib.asynccontextmanager
async def watching(resolver: Resolver | None = None) -> AsyncIterator[Watching]:
    seen = Watching()
    resolver = resolver or ServiceResolver(SERVICE, "default", "grpc", times=TIMES)

    async def follow() -> None:
        async for found in resolver.watch():
            seen.found, seen.times = found, seen.times + 1

    task = asyncio.create_task(follow())
    try:
        await until(lambda: seen.found is not None, what="a first answer")
        yield seen
    finally:
        task.cancel()
        await asyncio.wait({task})
        await until(no_thread_is_left)


def no_thread_is_left() -> bool:
    return not any(thread.name == f"endpoints of {SERVICE}" for thread in threading.enumerate())


def failures(reason: str) -> float:
    return float(metrics.DISCOVERY_FAILURES.labels(reason)._value.get())


async def test_endpoints_that_come_go_and_change_are_followed(kube: Kube) -> None:
    async with watching() as seen:
        assert seen.found == frozenset()
        await kube.put_slice("a", ["10.0.0.1", "10.0.0.2"])
        await until(lambda: seen.is_now("10.0.0.1", "10.0.0.2"))
        # Another slice of the Service, and one of another Service.
        await kube.put_slice("b", ["10.0.0.3"])
        await kube.put_slice("c", ["10.0.0.9"], service="another")
        await until(lambda: seen.is_now("10.0.0.1", "10.0.0.2", "10.0.0.3"))
        await kube.put_slice("a", ["10.0.0.2"])
        await until(lambda: seen.is_now("10.0.0.2", "10.0.0.3"))
        await kube.delete_slice("b")
        await until(lambda: seen.is_now("10.0.0.2"))
        await kube.delete_slice("a")
        await until(seen.is_now)


async def test_an_endpoint_that_ends_or_is_not_ready_gets_nothing_new(kube: Kube) -> None:
    async with watching() as seen:
        await kube.put_slice("a", ["10.0.0.1"])
        await kube.put_slice("b", ["10.0.0.2"], ready=False)
        await until(lambda: seen.is_now("10.0.0.1"))
        await kube.put_slice("b", ["10.0.0.2"], ready=True, serving=True)
        await until(lambda: seen.is_now("10.0.0.1", "10.0.0.2"))
        await kube.put_slice("a", ["10.0.0.1"], ready=False, serving=True, terminating=True)
        await until(lambda: seen.is_now("10.0.0.2"))


async def test_while_the_api_server_is_away_the_known_engines_stand(kube: Kube) -> None:
    async with watching() as seen:
        await kube.put_slice("a", ["10.0.0.1"])
        await until(lambda: seen.is_now("10.0.0.1"))
        before, said = failures("away"), seen.times
        await kube.kill_api()
        try:
            await until(lambda: failures("away") >= before + 3)
            assert seen.is_now("10.0.0.1")
        finally:
            await kube.start_api()
        assert seen.times == said
        await kube.put_slice("a", ["10.0.0.1", "10.0.0.2"])
        await until(lambda: seen.is_now("10.0.0.1", "10.0.0.2"))


async def test_a_frozen_api_server_is_noticed_and_found_again(kube: Kube) -> None:
    async with watching() as seen:
        await kube.put_slice("a", ["10.0.0.1"])
        await until(lambda: seen.is_now("10.0.0.1"))
        before = failures("away")
        kube.freeze_api()
        try:
            await until(lambda: failures("away") > before)
            assert seen.is_now("10.0.0.1")
        finally:
            kube.thaw_api()
        await kube.put_slice("a", ["10.0.0.2"])
        await until(lambda: seen.is_now("10.0.0.2"))


async def test_a_version_that_is_gone_is_listed_anew(
    kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, woken = failures("gone"), threading.Event()

    class Slept(KubernetesSlices):
        """Falls asleep between its list and its watch."""

        def watch(self, version: str) -> Iterator[Any]:
            woken.wait(30)
            return super().watch(version)

    monkeypatch.setattr("parley_session.fleet.discovery.KubernetesSlices", Slept)
    await kube.put_slice("a", ["10.0.0.1"])
    async with watching() as seen:
        assert seen.is_now("10.0.0.1")
        for number in range(3):
            await kube.put_slice("a", [f"10.0.1.{number}"])
        await kube.kill_api()
        await kube.forget_history()
        await kube.start_api()
        woken.set()
        await until(lambda: seen.is_now("10.0.1.2"))
        assert failures("gone") == gone + 1
        await kube.put_slice("a", ["10.0.0.5"])
        await until(lambda: seen.is_now("10.0.0.5"))


async def test_listing_anew_now_and_then_says_nothing_new(kube: Kube) -> None:
    times = WatchTimes(api=ApiTimes(window=1.0), resync=0.1)
    await kube.put_slice("a", ["10.0.0.1"])
    async with watching(ServiceResolver(SERVICE, "default", "50053", times=times)) as seen:
        await kube.put_slice("a", ["10.0.0.2"])
        await until(lambda: seen.is_now("10.0.0.2"))
        assert seen.times == 2


async def test_a_role_that_lists_and_watches_slices_is_enough(
    kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "system:serviceaccount:default:session"
    await kube.post("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "session"}})
    token = await kube.post(
        "/api/v1/namespaces/default/serviceaccounts/session/token",
        {"spec": {"expirationSeconds": 600}},
    )
    config = kube.write_kubeconfig(token["status"]["token"])
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    before = failures("away")
    await kube.put_slice("a", ["10.0.0.1"])
    resolver = ServiceResolver(SERVICE, "default", "grpc", times=TIMES)
    allow = asyncio.create_task(_allow(kube, name, before))
    async with watching(resolver) as seen:
        await allow
        await until(lambda: seen.is_now("10.0.0.1"))
        await kube.put_slice("a", ["10.0.0.2"])
        await until(lambda: seen.is_now("10.0.0.2"))


async def _allow(kube: Kube, user: str, before: float) -> None:
    """Give the role that docs/fleet.md names, once the API server has refused."""
    await until(lambda: failures("away") > before)
    roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rule = {
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["list", "watch"],
    }
    await kube.post(f"{roles}/roles", {"metadata": {"name": "session"}, "rules": [rule]})
    group = "rbac.authorization.k8s.io"
    await kube.post(
        f"{roles}/rolebindings",
        {
            "metadata": {"name": "session"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "session"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        },
    )


async def test_two_services_are_one_fleet_of_two_models(kube: Kube) -> None:
    async with (
        sim_replica(model_id="small", host="0.0.0.0") as (small, _),
        sim_replica(model_id="large", host="0.0.0.0") as (large, _),
    ):
        here = own_address()
        await kube.put_slice("s", [here], service="small", port=small.port)
        await kube.put_slice("l", [here], service="large", port=large.port)
        targets = "kubernetes:///small.default:grpc,kubernetes:///large.default:grpc"
        fleet = GrpcFleet(engine_targets(targets))
        await fleet.start()
        try:

            async def served() -> set[str]:
                return {model.id for model in await fleet.models()}

            async def both() -> bool:
                return await served() == {"small", "large"}

            async def one() -> bool:
                return await served() == {"large"}

            await until(both)
            assert [r.address for r in fleet._able("small")] == [f"{here}:{small.port}"]
            await kube.delete_slice("s")
            await until(one)
        finally:
            await fleet.stop()
