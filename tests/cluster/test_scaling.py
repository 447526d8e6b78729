"""Engines come under load and go after it: KEDA decides, by the signal of docs/fleet.md alone."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from support import cluster as kubernetes
from support.cluster import DEPLOYMENTS, Cluster
from support.disruption import under_load
from support.fault_table import Table, percentiles
from support.ledger import Ledger
from support.verdict import Kind

pytestmark = pytest.mark.timeout(3600)
HERE = Path(__file__).parent
MANIFEST = HERE / "prometheus.yaml"
EXTERNAL_METRICS = "v1beta1.external.metrics.k8s.io"
HPA = f"keda-hpa-{DEPLOYMENTS['inference']}"
# Twice as many streams as an engine batches: two engines of work, which at 0.7 takes three.
BATCH, STREAMS, TARGET = 8, 16, 0.7
WANTED, MOST = math.ceil(STREAMS / BATCH / TARGET), 4
ANSWER = "[[sim:length tokens=24]]"
# Answers over which a p95 is taken: two of each client.
WINDOW = 2 * STREAMS
# Of one CPU: far from where an autoscaler on CPU would act.
LOW_CPU = 0.5


@pytest.fixture
def autoscaled(cluster: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """The platform with one small engine, which KEDA may make four of by what Prometheus says."""
    binary = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
    if not binary:
        pytest.skip("no prometheus on the PATH, and PROMETHEUS names none")
    if not _serves_external_metrics(cluster):
        pytest.skip(f"the cluster has no KEDA: {EXTERNAL_METRICS} is not available")
    kubernetes.prometheus_image(tmp_path, binary)
    manifest = MANIFEST.read_text("utf-8").replace("NAMESPACE", cluster.namespace)
    cluster.kubectl("apply", "-f", "-", given=manifest)
    values = kubernetes.values()
    pool = values["inference"]["pool"]
    pool["settings"]["simConcurrency"] = BATCH
    pool["autoscaling"] = {
        "kind": "keda",
        "minReplicas": 1,
        "maxReplicas": MOST,
        "target": TARGET,
        "prometheus": f"http://prometheus.{cluster.namespace}.svc:9090",
        "scaleDownSeconds": 15,
    }
    try:
        cluster.rolled_out("prometheus")
        cluster.install(values)
        yield cluster
    finally:
        cluster.install(kubernetes.values())
        cluster.kubectl("wait", "--for=delete", f"hpa/{HPA}", "--timeout=60s")
        cluster.kubectl("delete", "-f", "-", given=manifest)


async def test_engines_follow_the_demand(autoscaled: Cluster, table: Table) -> None:
    cluster = autoscaled
    cluster.until(lambda: _settled(cluster), "one engine, and an autoscaler that can tell")
    [engine] = cluster.pods("inference")
    first = cluster.get("pod", engine)["status"]["podIP"]
    before: list[float] = []
    after: list[float] = []
    cpu: list[float] = []

    with Ledger() as ledger:

        def strike() -> None:
            cluster.until(lambda: cluster.ready_count("inference") > 1, "another engine")
            before.extend(_waits(ledger))
            used = f'rate(process_cpu_seconds_total{{instance="{first}:9053"}}[20s])'
            cpu.append(_asked(cluster, used))
            cluster.until(lambda: cluster.ready_count("inference") == WANTED, f"{WANTED}")
            slow = _p95(before)
            cluster.until(lambda: _p95(_waits(ledger)[-WINDOW:]) < slow / 2, "recovery")
            after.extend(_waits(ledger)[-WINDOW:])
            assert cluster.ready_count("inference") == WANTED

        seen = await under_load(
            cluster, ledger, strike, streams=STREAMS, at_least=BATCH, message=ANSWER
        )
    assert seen.verdict.count(*Kind) == 0, str(seen.verdict)

    demand = _asked(cluster, 'max(max_over_time(parley_session_engine_demand{model="sim"}[10m]))')
    assert demand > 1
    assert cpu[0] < LOW_CPU
    cluster.until(lambda: cluster.has("inference", 1), "the engines to go again")
    reasons = _rescales(cluster)
    assert any("s0-prometheus" in reason and "above target" in reason for reason in reasons)
    assert all("external metric" in r or "below target" in r for r in reasons), reasons
    table.notes.append(
        f"autoscaled under {STREAMS} streams, {len(ledger.asks)} answers, none lost or doubled: "
        f"demand {demand:.2f} engines, 1 to {WANTED} to 1 engines, the full one at "
        f"{cpu[0]:.0%} of a core; TTFT p95 {_p95(before):.2f} s with one engine, "
        f"{_p95(after):.2f} s with {WANTED}"
    )


def _serves_external_metrics(cluster: Cluster) -> bool:
    found = cluster.kubectl(
        "get", "apiservice", EXTERNAL_METRICS, "--ignore-not-found", "-o", "json"
    )
    conditions = json.loads(found or "{}").get("status", {}).get("conditions", [])
    return any(c["type"] == "Available" and c["status"] == "True" for c in conditions)


def _settled(cluster: Cluster) -> bool:
    """Whether there is one engine, and an autoscaler that has read its one metric."""
    hpa = cluster.get("hpa", HPA)
    [metric] = hpa["spec"]["metrics"]
    assert metric["type"] == "External", metric
    conditions = {c["type"]: c["status"] for c in hpa["status"].get("conditions", [])}
    assert conditions.get("ScalingActive") == "True", conditions
    return cluster.has("inference", 1)


def _waits(ledger: Ledger) -> list[float]:
    """Seconds to the first text of each answer that has one, in the order of asking."""
    waits = []
    for ask in list(ledger.asks):
        reading = ledger.readings.get((ask.run, ask.client))
        if reading and reading.deltas:
            waits.append(reading.deltas[0].at - ask.sent_at)
    return waits


def _p95(seconds: list[float]) -> float:
    _, p95 = percentiles(seconds)
    assert p95 is not None
    return p95


def _asked(cluster: Cluster, query: str) -> float:
    """What Prometheus says to a query that has one value."""
    service = f"/api/v1/namespaces/{cluster.namespace}/services/prometheus:9090/proxy"
    said = json.loads(
        cluster.kubectl("get", "--raw", f"{service}/api/v1/query?query={quote(query)}")
    )
    [found] = said["data"]["result"]
    return float(found["value"][1])


def _rescales(cluster: Cluster) -> list[str]:
    """Why the autoscaler changed the number of engines, in its own words."""
    events = cluster.get("events", "--field-selector", f"involvedObject.name={HPA}")["items"]
    return [event["message"] for event in events if event["reason"] == "SuccessfulRescale"]
