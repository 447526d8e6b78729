"""The chart is installed, asked, scaled, and refuses what is wrong."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from support import cluster as kubernetes
from support.cluster import DEPLOYMENTS, READY, RELEASE, Cluster
from support.confined import AS_IT_SHOULD_BE, program
from support.poll import until

# What each component counts when it is used.
USED = {
    "gateway": "parley_gateway_http_requests_total",
    "session": "parley_rpc_server_seconds_count",
    "cache": "parley_cache_lookups_total",
    "inference": "parley_inference_finished_total",
}


async def ask(http: httpx.AsyncClient, number: int) -> int:
    """Make a chat with a question that nobody has asked before; the status."""
    body = {"message": f"Number {number}", "options": {"maxTokens": 8}}
    headers = {"x-user-id": f"user-{number}", "connection": "close"}
    return (await http.post("/chat", json=body, headers=headers)).status_code


def test_a_chat_is_made_through_the_gateways_service(cluster: Cluster) -> None:
    said = cluster.helm("test", RELEASE, "--logs")
    assert "stored, read back and deleted" in said


def test_every_pod_is_ready_and_none_was_restarted(cluster: Cluster) -> None:
    pods = cluster.get("pods", "-l", f"app.kubernetes.io/instance={RELEASE}")["items"]
    assert len(pods) >= 8
    for pod in pods:
        for status in pod["status"]["containerStatuses"]:
            assert status["restartCount"] == 0, pod["metadata"]["name"]


@pytest.mark.parametrize("component", DEPLOYMENTS)
def test_a_container_is_nobody_and_can_write_and_build_nothing(
    cluster: Cluster, component: str
) -> None:
    pod = cluster.pods(component)[0]
    asking = program(may_ask=component in {"session", "worker"})
    assert AS_IT_SHOULD_BE in cluster.kubectl("exec", pod, "--", "python", "-c", asking)


async def all_are_used(
    cluster: Cluster, component: str, before: dict[str, float], numbers: Iterator[int]
) -> bool:
    """Ask 24 things on connections of their own; whether every pod has done something since."""
    async with httpx.AsyncClient(base_url=cluster.url(), timeout=60, trust_env=False) as http:
        asked = [ask(http, number) for number in itertools.islice(numbers, 24)]
        assert set(await asyncio.gather(*asked)) == {201}
    now = await asyncio.to_thread(cluster.metrics, component, USED[component])
    return now.keys() == before.keys() and all(now[pod] > before[pod] for pod in before)


@pytest.mark.parametrize("component", USED)
async def test_every_replica_is_used_as_they_come_and_go(cluster: Cluster, component: str) -> None:
    """Found by EndpointSlices (engines), DNS (session, cache) and the Service (gateway)."""
    numbers = itertools.count()
    for replicas in (3, 1, 2):
        cluster.scale(component, replicas)
        cluster.until(partial(cluster.has, component, replicas), f"{replicas} pods")
        before = cluster.metrics(component, USED[component])
        used = partial(all_are_used, cluster, component, before, numbers)
        await until(used, timeout=READY, what=f"all {replicas} used")


def test_a_change_of_settings_rolls_its_pods_and_no_others(cluster: Cluster) -> None:
    before = {component: set(cluster.pods(component)) for component in DEPLOYMENTS}
    changed = kubernetes.values()
    changed["gateway"]["settings"]["heartbeatSeconds"] = 7
    cluster.install(changed)
    cluster.until(lambda: not before["gateway"] & set(cluster.pods("gateway")), "other gateways")
    for component in set(DEPLOYMENTS) - {"gateway"}:
        assert set(cluster.pods(component)) == before[component]
    pod = cluster.pods("gateway")[0]
    asking = "import os; print(os.environ['PARLEY_GATEWAY_HEARTBEAT_SECONDS'])"
    assert cluster.kubectl("exec", pod, "--", "python", "-c", asking) == "7\n"


def test_pods_of_a_tier_are_evicted_one_at_a_time(cluster: Cluster) -> None:
    """The disruption budget: a second one waits until the first has a successor."""
    first, second = cluster.pods("session")

    def evict(pod: str) -> str:
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": cluster.namespace},
        }
        path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/eviction"
        return cluster.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))

    evict(first)
    with pytest.raises(AssertionError, match="disruption budget"):
        evict(second)
    cluster.rolled_out("session")
    cluster.until(lambda: "Success" in evict(second), "a second eviction")
    cluster.rolled_out("session")


def test_a_bad_values_file_is_refused_and_changes_nothing(cluster: Cluster) -> None:
    before = cluster.get("deployments")
    bad = kubernetes.values()
    bad["session"]["settings"]["leaseSecond"] = 3
    with pytest.raises(AssertionError, match="leaseSecond"):
        cluster.install(bad)
    after = cluster.get("deployments")
    assert [d["spec"] for d in before["items"]] == [d["spec"] for d in after["items"]]
