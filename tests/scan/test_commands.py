"""The commands that docs/operations.md tells operators to run do what it says, on an API server.

Nothing runs there, so `exec` and `status` have nobody to ask; the cluster suite has.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chart_schema import CHART

from support.kube import Kube, started

pytestmark = pytest.mark.timeout(300)
ROOT = CHART.parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
SECONDS = 60


def commands(heading: str) -> list[str]:
    """What a section tells to run with helm or kubectl, without what is said of it."""
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)).splitlines()
    told = [re.sub(r"\s+#.*", "", line) for line in lines]
    return [line for line in told if line.startswith(("helm ", "kubectl "))]


@dataclass(frozen=True)
class Release:
    """The chart, installed where nothing runs."""

    kube: Kube
    helm: str

    async def run(self, command: str) -> None:
        """Run a command of the page; it must succeed."""
        path = f"{Path(self.helm).parent}{os.pathsep}{os.environ['PATH']}"
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            command,
            cwd=ROOT,
            env={**os.environ, "PATH": path, "KUBECONFIG": str(self.kube.kubeconfig)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        assert process.returncode == 0, f"{command}\n{said.decode()}"

    async def replicas(self) -> dict[str, int]:
        """The replicas of each Deployment."""
        assert self.kube.client is not None
        items = (await self.kube.client.get(DEPLOYMENTS)).json()["items"]
        return {item["metadata"]["name"]: item["spec"]["replicas"] for item in items}

    async def restarted(self) -> set[str]:
        """The Deployments that were told to roll."""
        assert self.kube.client is not None
        items = (await self.kube.client.get(DEPLOYMENTS)).json()["items"]
        mark = "kubectl.kubernetes.io/restartedAt"
        return {
            item["metadata"]["name"]
            for item in items
            if mark in (item["spec"]["template"]["metadata"].get("annotations") or {})
        }


@pytest.fixture(name="release")
async def _release(helm: str, tmp_path: Path) -> AsyncIterator[Release]:
    if shutil.which("kubectl") is None:
        raise pytest.UsageError("no kubectl on the PATH")
    assert Path(helm).name == "helm"
    async with started(tmp_path) as kube:
        made = Release(kube, helm)
        await made.run(
            "helm install parley deploy/helm/parley -f deploy/helm/parley/ci/tried-values.yaml"
        )
        yield made


async def test_scaling(release: Release) -> None:
    before = await release.replicas()
    told = commands("Sizing and scaling")
    assert len(told) == 2
    for command in told:
        await release.run(command)
    changed = {name: n for name, n in (await release.replicas()).items() if before[name] != n}
    assert changed == {"parley-session": 4, "parley-inference-main": 3}


async def test_rolling_those_that_read_a_secret_at_start(release: Release) -> None:
    [restart] = [told for told in commands("Rotating secrets") if "restart" in told]
    await release.run(restart)
    assert await release.restarted() == {"parley-session", "parley-cache"}


async def test_stopping_what_writes_and_starting_it_again(release: Release) -> None:
    before = await release.replicas()
    stop, start, *_ = commands("Backup and restore")
    await release.run(stop)
    stopped = {name for name, n in (await release.replicas()).items() if n == 0}
    assert stopped == {"parley-gateway", "parley-session"}
    await release.run(start)
    assert await release.replicas() == before
