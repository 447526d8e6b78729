"""The chart is installed, asked, scaled, and refuses what is wrong."""

import asyncio
import json

import httpx
import pytest

from support import cluster as kubernetes
from support.cluster import READY, RELEASE, Cluster
from support.poll import until


async def ask(cluster: Cluster, number: int) -> int:
    async with httpx.AsyncClient(base_url=cluster.url(), timeout=60, trust_env=False) as http:
        body = {"message": f"Number {number}", "options": {"maxTokens": 8, "cache": "bypass"}}
        return (await http.post("/chat", json=body)).status_code


def served(cluster: Cluster) -> dict[str, float]:
    """Requests that each engine has ended, by its pod."""
    found = {}
    for pod in cluster.pods("inference"):
        path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}:9053/proxy/metrics"
        lines = cluster.kubectl("get", "--raw", path).splitlines()
        counts = [line for line in lines if line.startswith("parley_inference_finished_total")]
        found[pod] = sum(float(line.rsplit(" ", 1)[1]) for line in counts)
    return found


def test_a_chat_is_made_through_the_gateways_service(cluster: Cluster) -> None:
    said = cluster.helm("test", RELEASE, "--logs")
    assert "stored, read back and deleted" in said


def test_every_pod_is_ready_and_none_was_restarted(cluster: Cluster) -> None:
    for pod in cluster.get("pods", "-l", f"app.kubernetes.io/instance={RELEASE}")["items"]:
        for status in pod["status"].get("containerStatuses", []):
            assert status["restartCount"] == 0, pod["metadata"]["name"]


@pytest.mark.parametrize("engines", [3, 1, 2])
async def test_engines_are_found_as_they_come_and_go(cluster: Cluster, engines: int) -> None:
    name = f"deployment/{RELEASE}-inference-main"
    await asyncio.to_thread(cluster.kubectl, "scale", name, f"--replicas={engines}")
    await asyncio.to_thread(cluster.rolled_out, f"{RELEASE}-inference-main")

    async def gone() -> bool:
        return len(await asyncio.to_thread(cluster.pods, "inference")) == engines

    await until(gone, timeout=READY)
    before = await asyncio.to_thread(served, cluster)

    async def all_of_them_serve() -> bool:
        statuses = await asyncio.gather(*(ask(cluster, number) for number in range(24)))
        assert set(statuses) == {201}
        now = await asyncio.to_thread(served, cluster)
        return now.keys() == before.keys() and all(now[pod] > before[pod] for pod in before)

    await until(all_of_them_serve, timeout=READY)


def test_a_bad_values_file_is_refused_and_changes_nothing(cluster: Cluster) -> None:
    before = cluster.get("deployments", "-o", "json")
    bad = kubernetes.values()
    bad["session"]["settings"]["leaseSecond"] = 3
    with pytest.raises(AssertionError, match="leaseSecond"):
        cluster.install(bad)
    after = cluster.get("deployments", "-o", "json")
    assert json.dumps([d["spec"] for d in before["items"]]) == json.dumps(
        [d["spec"] for d in after["items"]]
    )
