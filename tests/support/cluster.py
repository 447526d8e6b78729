"""A Kubernetes cluster that somebody else keeps: kubectl, Helm and images, with bounds.

KUBECONFIG names the cluster. PARLEY_CLUSTER_IMAGE is a command that builds an image and
makes it known to the cluster; it is called with TAG CONTEXT and then arguments of `docker
build` (`-f FILE`, `--build-arg NAME=VALUE`). PARLEY_CLUSTER_URL may say how the gateway's
Service is reached; without it, its cluster address must answer to this machine.

Two more open what only the keeper of a node can do; tests that need one are skipped without
it. PARLEY_CLUSTER_TASKS is a command as `ctr -n k8s.io tasks` on the node of all pods.
PARLEY_CLUSTER_API_PID is the process of the API server, where it is one of this machine.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chart_schema import CHART
from images import PASSED_ON, labels, recipe, revision, version

from parley_devstack.paths import checkout

ROOT = CHART.parents[2]
RELEASE = "parley"
IMAGES = ("gateway", "session", "cache", "inference-base")
# The Deployment of each component.
DEPLOYMENTS = {
    "gateway": f"{RELEASE}-gateway",
    "session": f"{RELEASE}-session",
    "worker": f"{RELEASE}-worker",
    "cache": f"{RELEASE}-cache",
    "inference": f"{RELEASE}-inference-main",
}
ADMIN_PORTS = {"gateway": 9080, "session": 9051, "worker": 9051, "cache": 9052, "inference": 9053}
# Holds a pod that is gone, so that it can be asked how it went.
FINALIZER = "parley.io/held-by-a-test"
STORES = "localhost/parley-test-stores:test"
PROMETHEUS = "localhost/parley-test-prometheus:test"
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

    def has(self, component: str, count: int) -> bool:
        """Whether it has so many of them."""
        return len(self.pods(component)) == count

    def ready_count(self, component: str) -> int:
        """How many of its pods are ready."""
        status = self.get("deployment", DEPLOYMENTS[component])["status"]
        count: int = status.get("readyReplicas", 0)
        return count

    def rolled_out(self, component: str) -> None:
        """Wait until a component's Deployment is as its specification wants it."""
        name = f"deployment/{DEPLOYMENTS.get(component, component)}"
        self.kubectl("rollout", "status", name, f"--timeout={READY}s", timeout=READY + 10)

    def scale(self, component: str, replicas: int) -> None:
        """Scale a component, and wait until it is so; pods that are too many may still go."""
        name = f"deployment/{DEPLOYMENTS[component]}"
        self.kubectl("scale", name, f"--replicas={replicas}")
        self.rolled_out(component)

    def metrics(self, component: str, name: str) -> dict[str, float]:
        """The sum of a metric at each of a component's pods, through the API server."""
        found = {}
        for pod in self.pods(component):
            place = f"pods/{pod}:{ADMIN_PORTS[component]}/proxy/metrics"
            path = f"/api/v1/namespaces/{self.namespace}/{place}"
            lines = self.kubectl("get", "--raw", path).splitlines()
            values = [line.rsplit(" ", 1)[1] for line in lines if line.startswith(name)]
            found[pod] = sum(map(float, values))
        return found

    # A pod's end ---------------------------------------------------------------

    def hold(self, pod: str) -> None:
        """Keep a pod's record when it has gone, until `release`."""
        self._finalizers(pod, [FINALIZER])

    def release(self, pod: str) -> None:
        """Let it go."""
        self._finalizers(pod, None)

    def exit_code(self, pod: str) -> int | None:
        """How a held pod's first container ended; None: it runs."""
        [status, *_] = self.get("pod", pod)["status"]["containerStatuses"]
        code: int | None = status["state"].get("terminated", {}).get("exitCode")
        return code

    def _finalizers(self, pod: str, names: list[str] | None) -> None:
        patch = json.dumps({"metadata": {"finalizers": names}})
        self.kubectl("patch", "pod", pod, "--type=merge", "-p", patch)

    def ready(self, pod: str) -> bool:
        """Whether a pod is ready."""
        conditions = self.get("pod", pod)["status"].get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def restarts(self, pod: str, container: str) -> int:
        """How often a container of a pod was started again."""
        statuses = self.get("pod", pod)["status"]["containerStatuses"]
        [count] = (s["restartCount"] for s in statuses if s["name"] == container)
        return int(count)

    # The node ------------------------------------------------------------------

    def container(self, pod: str) -> str:
        """What the node knows a pod's first container by."""
        [status, *_] = self.get("pod", pod)["status"]["containerStatuses"]
        identity: str = status["containerID"].partition("://")[2]
        return identity

    def task(self, container: str, *action: str) -> None:
        """Do something to a container on its node, as `kill -s SIGKILL`."""
        run([*shlex.split(needed("PARLEY_CLUSTER_TASKS")), *action, container])

    @contextmanager
    def frozen(self, container: str) -> Iterator[None]:
        """Stop a container's first process in its tracks while the block runs."""
        self.task(container, "kill", "-s", "SIGSTOP")
        try:
            yield
        finally:
            self.task(container, "kill", "-s", "SIGCONT")

    @contextmanager
    def without_api_server(self) -> Iterator[None]:
        """Freeze the API server while the block runs."""
        process = int(needed("PARLEY_CLUSTER_API_PID"))
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    def url(self) -> str:
        """Where the gateway's Service answers."""
        if given := os.environ.get("PARLEY_CLUSTER_URL"):
            return given
        spec = self.get("service", f"{RELEASE}-gateway")["spec"]
        return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"


def image(tag: str, context: Path, *arguments: str) -> None:
    """Build an image and load it into the cluster."""
    run([*shlex.split(needed("PARLEY_CLUSTER_IMAGE")), tag, str(context), *arguments],
        timeout=BUILD)  # fmt: skip


def platform_image(name: str) -> None:
    """Build one of the platform's images from its Dockerfile."""
    image(f"localhost/parley-{name}:{TAG}", ROOT, *recipe(name), *labels(version(), revision()))


def prometheus_image(folder: Path, binary: str) -> None:
    """Put Prometheus' binary into an image."""
    shutil.copy(binary, folder / "prometheus")
    file = ROOT / "tests" / "cluster" / "prometheus.Dockerfile"
    image(PROMETHEUS, folder, "-f", str(file))


def stores_image(folder: Path) -> None:
    """Build the image of the stores' stand-ins."""
    shutil.copy(ROOT / "requirements" / "devstack.txt", folder / "requirements.txt")
    shutil.copytree(checkout().jars, folder / "jars")
    devstack = str(ROOT / "tools" / "devstack")
    wheel = [sys.executable, "-m", "uv", "build", "--wheel", "--python", sys.executable]
    run([*wheel, "--no-build-isolation", "--out-dir", str(folder), devstack])
    passed = [f"{key}={os.environ[key]}" for key in PASSED_ON if key in os.environ]
    arguments = [word for value in passed for word in ("--build-arg", value)]
    file = ROOT / "tests" / "cluster" / "stores.Dockerfile"
    image(STORES, folder, "-f", str(file), *arguments)


def values() -> Document:
    """Values for a small cluster: simulated engines, tiny requests, short leases."""
    tiny = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    return {
        "image": {"registry": "localhost", "tag": TAG, "pullPolicy": "Never"},
        "mongodb": {"existingSecret": "stores"},
        "redis": {"existingSecret": "stores"},
        # A comment on a stream that waits, before its reader takes it for dead.
        "gateway": {"replicas": 2, "resources": tiny, "settings": {"heartbeatSeconds": 2}},
        "session": {
            "replicas": 2,
            "resources": tiny,
            "settings": {"leaseSeconds": 3, "sweepSeconds": 1, "shutdownGraceSeconds": 15},
        },
        "worker": {"replicas": 1, "resources": tiny},
        "cache": {"replicas": 2, "resources": tiny},
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
