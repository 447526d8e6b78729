"""The platform on a real cluster, installed once; and the table of what was done to it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from chart_schema import CHART

from support import cluster as kubernetes
from support.cluster import Cluster
from support.fault_table import Table

HERE = Path(__file__).parent
TABLE = pytest.StashKey[Table]()


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Iterator[Table]:
    """The rows; printed, and written to reports, when all is over."""
    made = pytestconfig.stash.setdefault(TABLE, Table())
    yield made
    made.write(CHART.parents[2] / "reports" / "cluster_disruptions.md")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    made = config.stash.get(TABLE, None)
    if made is not None and made.rows:
        terminalreporter.section("disruptions on the cluster")
        terminalreporter.write_line(made.markdown())


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every image, from the real Dockerfiles."""
    for name in (*kubernetes.SERVICES, "inference-base"):
        kubernetes.service_image(name)
    kubernetes.stores_image(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="session")
def installed(images: None) -> Iterator[Cluster]:
    """The chart, installed from nothing into a namespace in which pods are restricted."""
    made = Cluster(f"parley-{uuid.uuid4().hex[:6]}")
    made.create()
    try:
        made.kubectl("apply", "-f", str(HERE / "stores.yaml"))
        made.rolled_out("stores")
        made.install(kubernetes.values())
        yield made
    finally:
        made.delete()


@pytest.fixture
def cluster(installed: Cluster) -> Cluster:
    """The platform as it was installed."""
    installed.install(kubernetes.values())
    return installed
