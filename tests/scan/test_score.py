"""kube-score finds nothing in any scenario but what is meant, for a reason that is written here."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from chart_schema import CHART

from support.helm import Document, Render

VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
# Check, the objects of which it is meant, and why what it asks for is not so.
MEANT: list[tuple[str, str, str]] = [
    (
        "container-image-pull-policy",
        ".*",
        "images have a version; asking the registry at each start would keep pods from starting "
        "while it is away",
    ),
    (
        "container-ephemeral-storage-request-and-limit",
        ".*",
        "the root is read-only, and every emptyDir has a bound, by which the kubelet evicts",
    ),
    (
        "deployment-has-host-podantiaffinity",
        "Deployment/.*",
        "pods are spread by topologySpreadConstraints, which keep none from running where nodes "
        "are few",
    ),
    (
        "deployment-replicas",
        ".*-inference-.*",
        "an engine is a GPU: how many there are is the operator's to pay",
    ),
    ("horizontalpodautoscaler-replicas", ".*-inference-.*", "likewise"),
    (
        "networkpolicy-targets-pod",
        "NetworkPolicy/.*-inference-huge",
        "it is for the pods of a LeaderWorkerSet, which kube-score does not know",
    ),
    ("pod-networkpolicy", "Pod/.*-test", "it lives for one chat, and nobody calls it"),
    (
        "container-security-context-user-group-id",
        "StatefulSet/.*-(mongodb|redis)",
        "the official images' user",
    ),
    (
        "pod-probes",
        "StatefulSet/.*-(mongodb|redis)",
        "a store that is slow is not helped by being started again",
    ),
]
# A limit on CPU would throttle a replica in the middle of a token; requests share it fairly.
FLAGS = ("--ignore-container-cpu-limit", "--output-format", "json")

Found = tuple[str, str, str]


def score(kube_score: str, documents: list[Document], folder: Path) -> set[Found]:
    """What kube-score holds against some objects: check, object and sentence."""
    (folder / "all.yaml").write_text(yaml.safe_dump_all(documents))
    done = subprocess.run(
        [kube_score, "score", *FLAGS, folder / "all.yaml"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    scored = json.loads(done.stdout)
    assert len(scored) > 10
    return {
        (check["check"]["id"], judged["object_name"], comment["summary"])
        for judged in scored
        for check in judged["checks"]
        # 10: in order.
        if not check["skipped"] and check["grade"] < 10
        for comment in check["comments"] or [{"summary": ""}]
    }


@pytest.fixture(name="found", scope="module")
def _found(render: Render, kube_score: str, tmp_path_factory: pytest.TempPathFactory) -> set[Found]:
    found = set()
    for path in VALUES:
        # Off by default, and judged as it is when it is on.
        values = yaml.safe_load(path.read_text("utf-8")) | {"networkPolicy": {"enabled": True}}
        found |= score(kube_score, render(values), tmp_path_factory.mktemp("score"))
    return found


def is_meant(one: Found, check: str, objects: str) -> bool:
    return one[0] == check and re.fullmatch(objects, one[1]) is not None


def test_nothing_is_found_but_what_is_meant(found: set[Found]) -> None:
    meant = {one for one in found for check, objects, _ in MEANT if is_meant(one, check, objects)}
    assert sorted(found - meant) == []


@pytest.mark.parametrize(("check", "objects"), [(check, objects) for check, objects, _ in MEANT])
def test_what_is_meant_is_still_there(found: set[Found], check: str, objects: str) -> None:
    assert any(is_meant(one, check, objects) for one in found)
