"""Pods go, by rollout and by force, while 24 clients stream: nothing is lost or doubled."""

import asyncio
import os
from contextlib import suppress

import httpx
import pytest

from support import cluster as kubernetes
from support.cluster import DEPLOYMENTS, Cluster
from support.disruption import disrupt
from support.fault_table import Table

# A case is a minute or two; the first one may have images to build.
pytestmark = pytest.mark.timeout(3600)
# An answer is at none of the cache's pods.
STREAMING = ("gateway", "session", "worker", "inference")
ON_THE_NODE = pytest.mark.skipif(
    "PARLEY_CLUSTER_TASKS" not in os.environ, reason="PARLEY_CLUSTER_TASKS is not set"
)


@pytest.mark.parametrize("component", STREAMING)
async def test_a_pod_that_is_asked_to_go_ends_by_itself(
    cluster: Cluster, table: Table, component: str
) -> None:
    pod = cluster.pods(component)[0]
    cluster.hold(pod)

    def strike() -> None:
        cluster.kubectl("delete", "pod", pod, "--wait=false")
        cluster.until(lambda: cluster.exit_code(pod) is not None, f"the end of {pod}")

    try:
        table.add(await disrupt(cluster, "pod deleted", component, strike))
        # Past its grace it would have been killed: 137.
        assert await asyncio.to_thread(cluster.exit_code, pod) == 0
    finally:
        cluster.release(pod)
    cluster.rolled_out(component)


@pytest.mark.parametrize("component", STREAMING)
async def test_a_pod_is_deleted_without_grace(
    cluster: Cluster, table: Table, component: str
) -> None:
    pod = cluster.pods(component)[0]

    def strike() -> None:
        cluster.kubectl("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")

    table.add(await disrupt(cluster, "pod deleted, no grace", component, strike))
    cluster.rolled_out(component)


@ON_THE_NODE
@pytest.mark.parametrize("component", STREAMING)
async def test_a_container_is_killed(cluster: Cluster, table: Table, component: str) -> None:
    container = cluster.container(cluster.pods(component)[0])

    def strike() -> None:
        cluster.task(container, "kill", "-s", "SIGKILL")

    table.add(await disrupt(cluster, "container killed", component, strike))
    cluster.rolled_out(component)


@ON_THE_NODE
@pytest.mark.parametrize("component", STREAMING)
async def test_a_container_hangs(cluster: Cluster, table: Table, component: str) -> None:
    """It answers nobody until the kubelet has found out, and then goes on."""
    pod = cluster.pods(component)[0]
    container = cluster.container(pod)

    def strike() -> None:
        with cluster.frozen(container):
            cluster.until(lambda: not cluster.ready(pod), f"{pod} not ready")

    table.add(await disrupt(cluster, "container frozen", component, strike))
    cluster.rolled_out(component)


@ON_THE_NODE
@pytest.mark.skipif(
    "PARLEY_CLUSTER_API_PID" not in os.environ, reason="PARLEY_CLUSTER_API_PID is not set"
)
async def test_an_engine_dies_while_the_api_server_is_away(cluster: Cluster, table: Table) -> None:
    container = cluster.container(cluster.pods("inference")[0])
    url = cluster.url()

    def strike() -> None:
        with cluster.without_api_server():
            cluster.task(container, "kill", "-s", "SIGKILL")
            for _ in range(3):
                body = {"message": "Still there?", "options": {"maxTokens": 40}}
                said = httpx.post(f"{url}/chat", json=body, timeout=60, trust_env=False)
                assert said.status_code == 201, said.text

    table.add(await disrupt(cluster, "killed, no API server", "inference", strike))
    cluster.rolled_out("inference")


@pytest.mark.parametrize("component", STREAMING)
async def test_a_tier_is_rolled(cluster: Cluster, table: Table, component: str) -> None:
    def strike() -> None:
        cluster.kubectl("rollout", "restart", f"deployment/{DEPLOYMENTS[component]}")
        cluster.rolled_out(component)

    table.add(await disrupt(cluster, "rolling restart", component, strike))


@pytest.mark.parametrize("component", STREAMING)
async def test_a_tier_is_scaled(cluster: Cluster, table: Table, component: str) -> None:
    def strike() -> None:
        cluster.scale(component, 3)
        cluster.scale(component, 1)
        cluster.until(lambda: cluster.has(component, 1), "one pod")

    table.add(await disrupt(cluster, "scaled to 3, then to 1", component, strike))


async def test_an_upgrade_is_rolled_back(cluster: Cluster, table: Table) -> None:
    new = kubernetes.values()
    new["gateway"]["settings"]["heartbeatSeconds"] = 1
    new["session"]["settings"]["cacheWaitSeconds"] = 3
    new["inference"]["pool"]["settings"]["simTtft"] = 0.1

    def strike() -> None:
        cluster.install(new)
        cluster.rollback()

    table.add(await disrupt(cluster, "upgrade and rollback", "all but cache", strike))


@pytest.mark.parametrize("container", ["mongodb", "valkey"])
async def test_a_store_is_away_and_back(cluster: Cluster, table: Table, container: str) -> None:
    pod = cluster.get("pods", "-l", "app=stores")["items"][0]["metadata"]["name"]
    restarts = cluster.restarts(pod, container)

    def strike() -> None:
        # Process 1 of the container, which may take what tells it so along; the kubelet starts it
        # again.
        end = ("python", "-c", "import os; os.kill(1, 15)")
        with suppress(AssertionError):
            cluster.kubectl("exec", pod, "-c", container, "--", *end)
        cluster.until(lambda: cluster.restarts(pod, container) > restarts, "a restart")
        cluster.until(lambda: cluster.ready(pod), f"{container} to be back")

    table.add(await disrupt(cluster, "container restarted", container, strike))
    cluster.rolled_out("stores")
