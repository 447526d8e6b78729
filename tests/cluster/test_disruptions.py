"""Pods go, by rollout and by force, while 24 clients stream: nothing is lost or doubled."""

import pytest

from support import cluster as kubernetes
from support.cluster import RELEASE, Cluster
from support.disruption import disrupt
from support.fault_table import Table

DEPLOYMENTS = {
    "gateway": f"{RELEASE}-gateway",
    "session": f"{RELEASE}-session",
    "inference": f"{RELEASE}-inference-main",
}


@pytest.mark.parametrize("grace", [30, 0], ids=["with grace", "by force"])
@pytest.mark.parametrize("component", DEPLOYMENTS)
async def test_a_pod_is_deleted(cluster: Cluster, table: Table, component: str, grace: int) -> None:
    pod = cluster.pods(component)[0]

    def strike() -> None:
        force = ["--force"] if grace == 0 else []
        cluster.kubectl("delete", "pod", pod, f"--grace-period={grace}", "--wait=false", *force)

    fault = "pod deleted" if grace else "pod deleted, no grace"
    table.add(await disrupt(cluster, fault, component, strike))
    cluster.rolled_out(DEPLOYMENTS[component])


@pytest.mark.parametrize("component", DEPLOYMENTS)
async def test_a_tier_is_rolled(cluster: Cluster, table: Table, component: str) -> None:
    name = f"deployment/{DEPLOYMENTS[component]}"

    def strike() -> None:
        cluster.kubectl("rollout", "restart", name)
        cluster.rolled_out(DEPLOYMENTS[component])

    table.add(await disrupt(cluster, "rolling restart", component, strike))


async def test_an_upgrade_is_rolled_back(cluster: Cluster, table: Table) -> None:
    new = kubernetes.values()
    new["gateway"]["settings"] = {"heartbeatSeconds": 5}
    new["session"]["settings"]["cacheWaitSeconds"] = 3

    def strike() -> None:
        cluster.install(new)
        cluster.helm("rollback", RELEASE, "--wait", "--timeout=240s")

    table.add(await disrupt(cluster, "upgrade and rollback", "gateway, session", strike))


@pytest.mark.parametrize("container", ["mongodb", "valkey"])
async def test_a_store_is_away_and_back(cluster: Cluster, table: Table, container: str) -> None:
    pod = cluster.get("pods", "-l", "app=stores")["items"][0]["metadata"]["name"]

    def strike() -> None:
        # Process 1 of the container; the kubelet starts it again.
        cluster.kubectl(
            "exec", pod, "-c", container, "--", "python", "-c", "import os; os.kill(1, 15)"
        )

    table.add(await disrupt(cluster, "container restarted", container, strike))
    cluster.rolled_out("stores")
