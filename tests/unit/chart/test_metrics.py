"""Alerts and dashboards name metrics that the services have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from chart_schema import CHART
from prometheus_client import REGISTRY

import parley_cache.bootstrap
import parley_gateway.bootstrap
import parley_inference.metrics
import parley_session.bootstrap

SERVICES = (parley_cache, parley_gateway, parley_inference, parley_session)
FILES = sorted((CHART / "files").glob("dashboards/*.json"))
ALERTS = CHART / "files" / "alerts.yaml"


def names(text: str) -> set[str]:
    return set(re.findall(r"\bparley_[a-z_]+", text))


@pytest.fixture(name="known", scope="module")
def _known() -> set[str]:
    assert SERVICES
    known: dict[str, Any] = REGISTRY._names_to_collectors
    return set(known)


@pytest.mark.parametrize("path", [*FILES, ALERTS], ids=lambda path: path.name)
def test_every_metric_that_is_named_exists(path: Path, known: set[str]) -> None:
    named = names(path.read_text("utf-8"))
    assert len(named) > 3
    assert named - known == set()


def test_a_misspelt_metric_would_be_found(known: set[str]) -> None:
    assert names("rate(parley_gateway_http_request_total[5m])") - known


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_dashboards_panels_do_not_overlap(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text("utf-8"))["panels"]:
        at = panel["gridPos"]
        columns = range(at["x"], at["x"] + at["w"])
        rows = range(at["y"], at["y"] + at["h"])
        cells = {(column, row) for column in columns for row in rows}
        assert not cells & taken
        taken |= cells


def test_every_alert_has_a_part_of_the_runbook() -> None:
    book = (CHART.parents[2] / "docs" / "operations.md").read_text("utf-8").lower()
    alerts = re.findall(r"alert: (\w+)", ALERTS.read_text("utf-8"))
    assert len(alerts) > 5
    assert [alert for alert in alerts if f"### {alert.lower()}\n" not in book] == []
