"""A Kubernetes cluster that somebody else keeps: kubectl, Helm and images, with bounds.

KUBECONFIG names the cluster. PARLEY_CLUSTER_IMAGE is a command that builds an image and
makes it known to the cluster; it is called with TAG CONTEXT and then arguments of `docker
build` (`-f FILE`, `--build-arg NAME=VALUE`). PARLEY_CLUSTER_URL may say how the gateway's
Service is reached; without it, its cluster address must answer to this machine.
PARLEY_CLUSTER_LOAD is a command that makes an image known there out of a FILE, as `docker
save` writes it; only real engines need it.

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
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from chart_schema import CHART
from images import PASSED_ON, labels, recipe, revision, version

from parley_devstack.paths import checkout
from support.poll import until_sync

T = TypeVar("T")
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
# Seconds. A look at the cluster is a process that takes CPU from what is looked at.
COMMAND, BUILD, READY, LOOK = 120, 1200, 240, 0.5
# Lines of a log, or of warnings, that are told of a failure.
TOLD = 12
# Of the release, all but the pod of `helm test`.
OURS = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component!=test"

Document = dict[str, Any]


class Stopped(Exception):
    """What was waited for matters no more: `Cluster.stop` is set."""


def needed(name: str) -> str:
    """A setting without which there is no cluster to test on."""
    value = os.environ.get(name)
    if not value:
        raise pytest.UsageError(f"{name} is not set: see CONTRIBUTING.md, `make test-cluster`")
    return value


def run(command: Sequence[str], *, given: str | None = None, timeout: float = COMMAND) -> str:
    """Run a command to its end; what it printed. Raises AssertionError with its own words."""
    name = f"{shlex.join(command[:6])} …"
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{name}: no end within {timeout} s") from None
    assert done.returncode == 0, f"{name}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Cluster:
    """One namespace of a cluster, in which pods are restricted.

    `patience`: seconds that anything there may take.
    """

    def __init__(self, namespace: str, patience: int = READY) -> None:
        self.namespace = namespace
        self.patience = patience
        # Ends what waits in `until`.
        self.stop = threading.Event()
        # What the release was installed with; None: something was changed beside it.
        self._values: Document | None = None
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

    def helm(self, *arguments: str) -> str:
        """Call Helm in the namespace."""
        command = [self.helm_binary, "-n", self.namespace, *arguments]
        return run(command, timeout=self.patience + 60)

    def create(self) -> None:
        """Make the namespace; what does not keep to `restricted` is refused in it."""
        run(["kubectl", "create", "namespace", self.namespace])
        level = "pod-security.kubernetes.io/enforce=restricted"
        run(["kubectl", "label", "namespace", self.namespace, level])

    def delete(self) -> None:
        """Have the cluster remove the namespace with all that is in it, which takes it a while."""
        run(["kubectl", "delete", "namespace", self.namespace, "--wait=false"])

    def stores(self, manifest: Path) -> None:
        """Bring the stores, as an operator does."""
        self.kubectl("apply", "-f", str(manifest))
        self.rolled_out("stores")

    def install(self, values: Document) -> str:
        """Install the chart, or upgrade to these values, and wait until all is ready."""
        self._values = None
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(values, file)
            file.flush()
            said = self.helm(
                "upgrade", "--install", RELEASE, str(CHART), "-f", file.name,
                "--wait", f"--timeout={self.patience}s",
            )  # fmt: skip
        self._values = values
        return said

    def restore(self, values: Document) -> None:
        """Have the release as it is with these values, with no pod that comes or goes."""
        if self._values != values:
            self.install(values)
        self.until(self.at_rest, "every pod to be ready, and none to be going")

    def rollback(self) -> None:
        """Go back to the release's previous revision, and wait until all is ready."""
        self._values = None
        self.helm("rollback", RELEASE, "--wait", f"--timeout={self.patience}s")

    def until(self, happened: Callable[[], T], what: str) -> T:
        """Wait for something to happen to the cluster. Raises Stopped once `stop` is set."""

        def look() -> T:
            if self.stop.is_set():
                raise Stopped(what)
            return happened()

        return until_sync(look, self.patience, what, longest_pause=LOOK)

    def at_rest(self) -> bool:
        """Whether every pod that the release wants is ready, and there is no other."""
        found = self.get("deployments,pods", "-l", OURS)["items"]
        deployments = [each for each in found if each["kind"] == "Deployment"]
        pods = [each for each in found if each["kind"] == "Pod"]
        wanted: int = sum(each["spec"]["replicas"] for each in deployments)
        not_so = [each["metadata"]["name"] for each in deployments if not _is_rolled_out(each)]
        not_so += [each["metadata"]["name"] for each in pods if not _is_ready(each)]
        assert not not_so, f"not ready: {', '.join(not_so)}"
        return len(pods) == wanted

    def state(self) -> str:
        """What somebody who looks for a failure's cause would ask first, as text."""
        load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
        lines = [f"load of this machine: {load} on {os.cpu_count()} CPUs"]
        lines += ["--- pods", *self._told("get", "pods", "-o", "wide"), "--- warnings"]
        warnings = ("--field-selector=type=Warning", "--sort-by=.lastTimestamp")
        lines += self._told("get", "events", *warnings)[-TOLD:]
        for pod in self._told("get", "pods", "-o", "name"):
            lines += [f"--- {pod}", *self._told("logs", pod, "--all-containers", f"--tail={TOLD}")]
        return "\n".join(lines)

    def _told(self, *arguments: str) -> list[str]:
        """The lines that kubectl says, of a failure as well."""
        try:
            return self.kubectl(*arguments, timeout=20).splitlines()
        except AssertionError as error:
            return str(error).splitlines()

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
        name = DEPLOYMENTS.get(component, component)
        self.until(lambda: _is_rolled_out(self.get("deployment", name)), f"{name} rolled out")

    def scale(self, component: str, replicas: int) -> None:
        """Scale a component, and wait until it is so; pods that are too many may still go."""
        self._values = None
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
        return _is_ready(self.get("pod", pod))

    def seconds_to_ready(self, pod: str) -> float:
        """How long after it was made a pod was ready; whole seconds."""
        found = self.get("pod", pod)
        [ready] = [c for c in found["status"]["conditions"] if c["type"] == "Ready"]
        moments = (found["metadata"]["creationTimestamp"], ready["lastTransitionTime"])
        made, became = map(datetime.fromisoformat, moments)
        return (became - made).total_seconds()

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


@contextmanager
def namespace(patience: int = READY) -> Iterator[Cluster]:
    """A namespace while the block runs; what fails in it is told with what the cluster says."""
    made = Cluster(f"parley-{uuid.uuid4().hex[:6]}", patience)
    made.create()
    try:
        yield made
    except AssertionError as error:
        error.add_note(made.state())
        raise
    finally:
        made.delete()


def _is_ready(pod: Document) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _is_rolled_out(deployment: Document) -> bool:
    wanted, status = deployment["spec"]["replicas"], deployment["status"]
    counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    seen: int = status.get("observedGeneration", 0)
    return seen >= deployment["metadata"]["generation"] and counts == [wanted] * 3


def image(tag: str, context: Path, *arguments: str) -> None:
    """Build an image and load it into the cluster."""
    run([*shlex.split(needed("PARLEY_CLUSTER_IMAGE")), tag, str(context), *arguments],
        timeout=BUILD)  # fmt: skip


def load(file: Path) -> None:
    """Make an image known to the cluster out of a file."""
    run([*shlex.split(needed("PARLEY_CLUSTER_LOAD")), str(file)], timeout=BUILD)


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
            # Room for half of a crowd of 24: the others' answers wait, and workers make them.
            "settings": {
                "leaseSeconds": 3,
                "sweepSeconds": 1,
                "shutdownGraceSeconds": 15,
                "maxLiveRuns": 6,
            },
        },
        "worker": {"replicas": 2, "resources": tiny, "settings": {"maxLiveRuns": 64}},
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
