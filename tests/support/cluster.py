"""A Kubernetes cluster that somebody else keeps: kubectl, Helm and images, with bounds.

KUBECONFIG names the cluster. PARLEY_CLUSTER_IMAGE is a command that builds an image and
makes it known to the cluster; it is called with TAG CONTEXT and then arguments of `docker
build` (`-f FILE`, `--build-arg NAME=VALUE`). PARLEY_CLUSTER_URL may say how the gateway's
Service is reached; without it, its cluster address must answer to this machine.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from chart_schema import CHART

from parley_devstack.paths import checkout

ROOT = CHART.parents[2]
RELEASE = "parley"
SERVICES = ("gateway", "session", "cache")
STORES = "localhost/parley-test-stores:test"
TAG = "test"
# Seconds.
COMMAND, BUILD, READY = 120, 1200, 240

Document = dict[str, Any]


def needed(name: str) -> str:
    """A setting without which there is no cluster to test on."""
    value = os.environ.get(name)
    if not value:
        raise pytest.UsageError(f"{name} is not set: see CONTRIBUTING.md, `make test-cluster`")
    return value


def run(command: Sequence[str], *, given: str | None = None, timeout: float = COMMAND) -> str:
    """Run a command to its end; what it printed. Raises AssertionError with its own words."""
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command[:6])} …:\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Cluster:
    """One namespace of a cluster, in which pods are restricted."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        needed("KUBECONFIG")
        self.helm_binary = os.environ.get("HELM") or shutil.which("helm") or ""
        if not self.helm_binary:
            raise pytest.UsageError("no helm on the PATH, and HELM does not name one")

    def kubectl(self, *arguments: str, given: str | None = None, timeout: float = COMMAND) -> str:
        """Call kubectl in the namespace."""
        return run(["kubectl", "-n", self.namespace, *arguments], given=given, timeout=timeout)

    def get(self, *arguments: str) -> Document:
        """Read objects."""
        found: Document = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def helm(self, *arguments: str, timeout: float = READY + 60) -> str:
        """Call Helm in the namespace."""
        return run([self.helm_binary, "-n", self.namespace, *arguments], timeout=timeout)

    def create(self) -> None:
        """Make the namespace; what does not keep to `restricted` is refused in it."""
        run(["kubectl", "create", "namespace", self.namespace])
        level = "pod-security.kubernetes.io/enforce=restricted"
        run(["kubectl", "label", "namespace", self.namespace, level])

    def delete(self) -> None:
        """Remove the namespace with all that is in it."""
        run(["kubectl", "delete", "namespace", self.namespace, "--timeout=90s"])

    def install(self, values: Document, *, wait: int = READY) -> str:
        """Install the chart, or upgrade to these values, and wait until all is ready."""
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(values, file)
            file.flush()
            return self.helm(
                "upgrade", "--install", RELEASE, str(CHART), "-f", file.name,
                "--wait", f"--timeout={wait}s", timeout=wait + 60,
            )  # fmt: skip

    def pods(self, component: str) -> list[str]:
        """Names of the pods of a component that are not on their way out."""
        selector = f"app.kubernetes.io/component={component}"
        return [
            pod["metadata"]["name"]
            for pod in self.get("pods", "-l", selector)["items"]
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def rolled_out(self, name: str) -> None:
        """Wait until a Deployment is as its specification wants it."""
        self.kubectl(
            "rollout", "status", f"deployment/{name}", f"--timeout={READY}s", timeout=READY + 10
        )

    def url(self) -> str:
        """Where the gateway's Service answers."""
        if given := os.environ.get("PARLEY_CLUSTER_URL"):
            return given
        spec = self.get("service", f"{RELEASE}-gateway")["spec"]
        return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"


def image(tag: str, context: Path, *arguments: str) -> None:
    """Build an image and load it into the cluster."""
    command = [*shlex.split(needed("PARLEY_CLUSTER_IMAGE")), tag, str(context), *arguments]
    for name in ("PIP_INDEX_URL", "PIP_CERT"):
        if name in os.environ:
            command += ["--build-arg", f"{name}={os.environ[name]}"]
    run(command, timeout=BUILD)


def service_image(name: str) -> str:
    """Build a service's image from its Dockerfile; its name."""
    tag = f"localhost/parley-{name}:{TAG}"
    if name.startswith("inference-"):
        file, argument = "inference", f"VARIANT={name.removeprefix('inference-')}"
    else:
        file, argument = "service", f"SERVICE={name}"
    path = ROOT / "deploy" / "images" / f"{file}.Dockerfile"
    image(tag, ROOT, "-f", str(path), "--build-arg", argument)
    return tag


def stores_image(folder: Path) -> None:
    """Build the image of the stores' stand-ins."""
    shutil.copy(ROOT / "requirements" / "devstack.txt", folder / "requirements.txt")
    shutil.copytree(checkout().jars, folder / "jars")
    devstack = str(ROOT / "tools" / "devstack")
    wheel = [sys.executable, "-m", "uv", "build", "--wheel", "--no-build-isolation", devstack]
    run([*wheel, "--out-dir", str(folder)])
    image(STORES, folder, "-f", str(ROOT / "tests" / "cluster" / "stores.Dockerfile"))


def values(**more: Mapping[str, Any]) -> Document:
    """Values for a small cluster: simulated engines, tiny requests, short leases."""
    tiny = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    made: Document = {
        "image": {"registry": "localhost", "tag": TAG, "pullPolicy": "Never"},
        "mongodb": {"existingSecret": "stores"},
        "redis": {"existingSecret": "stores"},
        "gateway": {"replicas": 2, "resources": tiny},
        "session": {
            "replicas": 2,
            "resources": tiny,
            "settings": {"leaseSeconds": 3, "sweepSeconds": 1, "shutdownGraceSeconds": 15},
        },
        "cache": {"replicas": 1, "resources": tiny},
        "inference": {
            "pool": {
                "image": {"repository": "parley-inference-base"},
                "settings": {"engine": "sim", "simFaults": True, "simItl": 0.1},
                "gpus": 0,
                "replicas": 2,
                "sharedMemory": "",
                "resources": tiny,
            }
        },
    }
    for name, part in more.items():
        made[name] = {**made.get(name, {}), **part}
    return made
