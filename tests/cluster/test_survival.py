"""Pods go, by rollout and by force, while 24 clients stream: nothing is lost or doubled."""

import asyncio
import os
from collections.abc import Callable
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
# Where an abrupt end breaks what is in progress; another engine goes on within the second.
BROKEN = ("gateway", "session", "worker")
LIVE, ENDED = "parley_session_live_runs", "parley_session_runs_total"
ON_THE_NODE = pytest.mark.skipif(
    "PARLEY_CLUSTER_TASKS" not in os.environ, reason="PARLEY_CLUSTER_TASKS is not set"
)


async def try_fault(
    cluster: Cluster,
    table: Table,
    fault: str,
    component: str,
    strike: Callable[[], object],
    *,
    disturbs: bool = False,
) -> None:
    """Strike a component in mid-answer. `disturbs`: some of its answers must have been.

    Workers are struck when each makes answers, and those that stay must have ended some since.
    """
    made: list[float] = []

    def strike_at_work() -> None:
        if component == "worker":
            made.extend(
                cluster.until(lambda: _all_at_work(cluster), "every worker to make answers")
            )
        strike()

    before = cluster.metrics("worker", ENDED)
    row = await disrupt(cluster, fault, component, strike_at_work)
    table.add(row)
    assert not disturbs or row.disturbed, row
    if component == "worker":
        cluster.rolled_out("worker")
        after = cluster.metrics("worker", ENDED)
        assert any(count > before.get(pod, 0) for pod, count in after.items()), after
        table.notes.append(
            f"worker, {fault}: it struck when workers made {sum(made):.0f} of the answers"
        )


def _all_at_work(cluster: Cluster) -> list[float]:
    """How many answers each worker makes; nothing while one makes none."""
    live = list(cluster.metrics("worker", LIVE).values())
    return live if all(live) else []


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
        await try_fault(cluster, table, "pod deleted", component, strike)
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

    disturbs = component in BROKEN
    await try_fault(cluster, table, "pod deleted, no grace", component, strike, disturbs=disturbs)
    cluster.rolled_out(component)


@ON_THE_NODE
@pytest.mark.parametrize("component", STREAMING)
async def test_a_container_is_killed(cluster: Cluster, table: Table, component: str) -> None:
    container = cluster.container(cluster.pods(component)[0])

    def strike() -> None:
        cluster.task(container, "kill", "-s", "SIGKILL")

    disturbs = component in BROKEN
    await try_fault(cluster, table, "container killed", component, strike, disturbs=disturbs)
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

    disturbs = component in BROKEN
    await try_fault(cluster, table, "container frozen", component, strike, disturbs=disturbs)
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
        if component == "worker":
            cluster.until(lambda: _all_at_work(cluster), "the new workers to make answers")

    await try_fault(cluster, table, "rolling restart", component, strike)


@pytest.mark.parametrize("component", STREAMING)
async def test_a_tier_is_scaled(cluster: Cluster, table: Table, component: str) -> None:
    def strike() -> None:
        cluster.scale(component, 3)
        cluster.scale(component, 1)
        cluster.until(lambda: cluster.has(component, 1), "one pod")

    await try_fault(cluster, table, "scaled to 3, then to 1", component, strike)


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
