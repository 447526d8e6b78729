"""The platform on a real cluster, installed once; and the table of what was done to it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from chart_schema import CHART

from support import cluster as kubernetes
from support.cluster import Cluster
from support.fault_table import Table

HERE = Path(__file__).parent
REPORTS = CHART.parents[2] / "reports"
TABLE = pytest.StashKey[Table]()
LOST = pytest.StashKey[str]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure what the cluster says then, before anything is undone."""
    report = yield
    if report.failed and report.when != "teardown" and isinstance(item, pytest.Function):
        used = {each for each in item.funcargs.values() if isinstance(each, Cluster)}
        report.sections += [(f"namespace {each.namespace}", each.state()) for each in used]
    return report


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Iterator[Table]:
    """The rows; printed, and written to reports, when all is over."""
    made = pytestconfig.stash.setdefault(TABLE, Table())
    yield made
    made.write(REPORTS / "cluster_disruptions.md")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the tables; that of tests and their times is written here."""
    made = config.stash.get(TABLE, None)
    if made is not None and (made.rows or made.notes):
        terminalreporter.section("disruptions on the cluster")
        terminalreporter.write_line(made.markdown())
    times = _times(terminalreporter)
    if not times:
        return
    terminalreporter.section("tests on the cluster")
    terminalreporter.write_line(times)
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "cluster_tests.md").write_text(times, "utf-8")


def _times(reporter: pytest.TerminalReporter) -> str:
    """Every test with its outcome and its seconds, setting up included."""
    seconds: dict[str, float] = {}
    outcomes: dict[str, str] = {}
    for outcome in ("passed", "failed", "error", "skipped", ""):
        for report in reporter.getreports(outcome):
            if not report.nodeid.startswith("tests/cluster/"):
                continue
            seconds[report.nodeid] = seconds.get(report.nodeid, 0.0) + report.duration
            if outcome:
                outcomes.setdefault(report.nodeid, outcome)
    if not outcomes:
        return ""
    lines = ["# Tests on a cluster", "", "| test | outcome | seconds |", "|---|---|---:|"]
    for node, outcome in outcomes.items():
        test = node.rpartition("/")[2].replace("|", "\\|")
        lines.append(f"| `{test}` | {outcome} | {seconds[node]:.1f} |")
    return "\n".join([*lines, f"| all | | {sum(seconds.values()):.0f} |", ""])


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every image, from the real Dockerfiles."""
    for name in kubernetes.IMAGES:
        kubernetes.platform_image(name)
    kubernetes.stores_image(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="session")
def installed(images: None) -> Iterator[Cluster]:
    """The chart, installed from nothing into a namespace in which pods are restricted."""
    with kubernetes.namespace() as made:
        made.stores(HERE / "stores.yaml")
        made.install(kubernetes.values())
        yield made


@pytest.fixture
def cluster(installed: Cluster, pytestconfig: pytest.Config) -> Cluster:
    """The platform as it was installed, at rest; nothing, once it could not be had again."""
    if why := pytestconfig.stash.get(LOST, ""):
        pytest.fail(why)
    try:
        installed.restore(kubernetes.values())
    except AssertionError as error:
        pytestconfig.stash[LOST] = f"not tried: the platform did not come back before: {error}"
        raise
    return installed
