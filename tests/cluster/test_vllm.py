"""Engines on vLLM as pods, the weights in their image: one, two and one again while chats flow.

`make test-cluster-vllm`. The image is the one that `make images IMAGES=inference-cpu` built, with
the builder that PARLEY_TEST_BUILDER names.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chart_schema import CHART
from images import LABEL, Builder, Failed, found_builder, version

from support import cluster as kubernetes
from support.cluster import RELEASE, Cluster, Document
from support.confined import AS_IT_SHOULD_BE, program
from support.crowd import Crowd, Patience
from support.disruption import LOG_TTL_SECONDS, evidence_of
from support.ledger import Ledger
from support.phases import GENERATED, one_two_one, write
from support.verdict import Kind, judge
from support.vllm import model_for_all

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]

HERE = Path(__file__).parent
REPORT = CHART.parents[2] / "reports" / "cluster_vllm.md"
NAME = "parley-inference-cpu-smol"
# Seconds. Two engines start on the cores that the first one and the cluster are at work on.
PATIENCE, TURN_SECONDS = 1200, 300.0
CLIENTS = 8


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine's image, and how long the cluster took to take it in."""

    size: str
    revision: str
    seconds: float


@pytest.fixture(scope="module")
def engine_image(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The image with the small model in it, made known to the cluster."""
    if "PARLEY_CLUSTER_LOAD" not in os.environ:
        pytest.skip("PARLEY_CLUSTER_LOAD is not set: nothing takes the engine's image in")
    engine = f"localhost/parley-inference-cpu:{version()}"
    try:
        builder = Builder(os.environ.get("PARLEY_TEST_BUILDER") or found_builder())
        built = builder.built(engine)
    except Failed as failure:
        pytest.skip(f"no {engine}, which `make images IMAGES=inference-cpu` builds: {failure}")
    tag = f"localhost/{NAME}:{kubernetes.TAG}"
    weights = model_for_all(tmp_path_factory.mktemp("weights") / "smol")
    file = str(HERE / "engine.Dockerfile")
    derived = builder.build(tag, weights, ["-f", file, "--build-arg", f"ENGINE={engine}"])
    archive = tmp_path_factory.mktemp("archive") / "engine.tar"
    began = time.monotonic()
    try:
        builder.save(tag, archive)
        kubernetes.load(archive)
    finally:
        archive.unlink(missing_ok=True)
    return Loaded(derived.size, built.labels[f"{LABEL}revision"], time.monotonic() - began)


def values() -> Document:
    """One engine of one thread, and little else: all of it shares two cores."""
    made = kubernetes.values()
    made["gateway"]["replicas"] = 1
    made["session"] |= {"replicas": 1, "settings": {}}
    made["worker"]["replicas"] = 0
    made["cache"] = {"enabled": False}
    made["inference"]["pool"] = {
        "image": {"repository": NAME},
        "weights": {"source": "image"},
        # More clients than an engine batches, so that answers wait for one.
        "settings": {
            "engine": "vllm",
            "model": "/models/smol",
            "maxModelLen": 2048,
            "maxNumSeqs": 4,
            "cpuThreads": "nobind",
            "shutdownGraceSeconds": 60,
        },
        "gpus": 0,
        "replicas": 1,
        "sharedMemory": "1Gi",
        "startupSeconds": PATIENCE,
        "resources": {"requests": {"cpu": "100m", "memory": "2Gi"}, "limits": {"memory": "8Gi"}},
        "pod": {"extraEnv": [{"name": "OMP_NUM_THREADS", "value": "1"}]},
    }
    return made


@pytest.fixture(scope="module")
def serving(engine_image: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The platform with one engine, in a namespace of its own in which pods are restricted."""
    for name in ("gateway", "session"):
        kubernetes.platform_image(name)
    kubernetes.stores_image(tmp_path_factory.mktemp("stores"))
    with kubernetes.namespace(PATIENCE) as made:
        made.stores(HERE / "stores.yaml")
        made.install(values())
        yield made


async def test_engines_join_and_leave_while_chats_flow(
    serving: Cluster, engine_image: Loaded, tmp_path: Path
) -> None:
    [first] = serving.pods("inference")
    starts = [serving.seconds_to_ready(first)]
    inside = ("python", "-c", program())
    assert AS_IT_SHOULD_BE in serving.kubectl("exec", first, "--", *inside)
    assert "stored, read back and deleted" in serving.helm("test", RELEASE, "--logs")
    url = serving.url()

    def crowd() -> Crowd:
        patience = Patience(silence=60.0, connect=10.0, turn=TURN_SECONDS)
        options = {"maxTokens": 24, "timeoutSeconds": round(TURN_SECONDS), "cache": "bypass"}
        return Crowd([url], ledger, size=CLIENTS, patience=patience, options=options)

    async def drawn() -> list[float]:
        counts = await asyncio.to_thread(serving.metrics, "inference", GENERATED)
        return list(counts.values())

    async def join() -> None:
        await asyncio.to_thread(serving.scale, "inference", 2)
        [second] = set(serving.pods("inference")) - {first}
        starts.append(serving.seconds_to_ready(second))

    async def leave() -> None:
        await asyncio.to_thread(_one_leaves, serving)

    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        phases = await one_two_one(ledger, crowd, drawn, join, leave)
    evidence = await evidence_of(serving, url, ledger)
    verdict = judge(ledger, evidence, log_ttl_seconds=LOG_TTL_SECONDS)
    wrong = verdict.count(*Kind)
    restarts = sum(serving.restarts(pod, "inference") for pod in serving.pods("inference"))
    notes = [
        f"image, with the weights: {engine_image.size}, of revision {engine_image.revision}",
        f"taken in by the cluster in {engine_image.seconds:.0f} s",
        f"ready after {' and '.join(f'{each:.0f}' for each in starts)} s, {restarts} restarts",
    ]
    title = f"vLLM as pods, 1 to 2 to 1: {len(ledger.asks)} answers, {wrong} lost or wrong"
    write(REPORT, title, phases, notes)
    assert wrong == 0, f"\n{verdict}"
    assert restarts == 0


def _one_leaves(cluster: Cluster) -> None:
    """Scale to one engine; the other ends by itself."""
    pods = cluster.pods("inference")
    for pod in pods:
        cluster.hold(pod)
    try:
        cluster.scale("inference", 1)
        [code] = cluster.until(lambda: _ends(cluster, pods), "an engine to end")
        assert code == 0, code
    finally:
        for pod in pods:
            cluster.release(pod)


def _ends(cluster: Cluster, pods: list[str]) -> list[int]:
    """How those ended that have."""
    codes = [cluster.exit_code(pod) for pod in pods]
    return [code for code in codes if code is not None]
