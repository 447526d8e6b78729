"""Every alert fires on what it is for, and is quiet otherwise: promtool says so."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.helm import Document, Render

# Minutes that are played, a sample each.
MINUTES = 40
HERE = 'namespace="default"'


@dataclass(frozen=True)
class Case:
    """Series (promtool's notation, a value a minute) on which an alert fires, or does not."""

    fires: dict[str, str]
    quiet: dict[str, str]
    labels: dict[str, str] = field(default_factory=dict)


def series(name: str, **labels: str) -> str:
    pairs = [HERE, *(f'{key}="{value}"' for key, value in labels.items())]
    return f"{name}{{{','.join(pairs)}}}"


def steady(value: float) -> str:
    return f"{value}+0x{MINUTES}"


def growing(by: float) -> str:
    return f"0+{by}x{MINUTES}"


REQUESTS = "parley_gateway_http_requests_total"
TTFT = "parley_gateway_ttft_seconds_bucket"
STORE = "parley_session_store_seconds_count"
CASES = {
    "ParleyGatewayErrors": Case(
        {series(REQUESTS, status="500"): growing(6), series(REQUESTS, status="200"): growing(60)},
        {series(REQUESTS, status="503"): growing(2), series(REQUESTS, status="200"): growing(60)},
    ),
    "ParleyFirstTokenSlow": Case(
        {series(TTFT, le="5"): growing(90), series(TTFT, le="+Inf"): growing(100)}
        | {series(TTFT, le="10"): growing(100)},
        {series(TTFT, le="5"): growing(99), series(TTFT, le="+Inf"): growing(100)},
    ),
    "ParleyNoEngine": Case(
        {series("parley_inference_ready"): steady(0)}, {series("parley_inference_ready"): steady(1)}
    ),
    "ParleyEnginesFull": Case(
        {series("parley_inference_waiting"): steady(9)}
        | {series("parley_inference_max_running"): steady(8)},
        {series("parley_inference_waiting"): steady(8)}
        | {series("parley_inference_max_running"): steady(8)},
    ),
    "ParleyStoreFailing": Case(
        {series(STORE, outcome="unavailable"): growing(12)},
        {
            series(STORE, outcome="unavailable"): growing(3),
            series(STORE, outcome="ok"): growing(99),
        },
    ),
    "ParleyLogSuspended": Case(
        {series("parley_session_log_suspensions_total"): growing(1)},
        {series("parley_session_log_suspensions_total"): steady(3)},
        {"namespace": "default"},
    ),
    "ParleyTakeovers": Case(
        {series("parley_session_takeovers_total", why="lease"): growing(12)},
        {series("parley_session_takeovers_total", why="lease"): growing(3)},
    ),
    "ParleyCacheDown": Case(
        {series("parley_cache_redis_up"): steady(0)}, {series("parley_cache_redis_up"): steady(1)}
    ),
    "ParleyCertificateExpiring": Case(
        {series("parley_tls_certificate_expiry_timestamp_seconds"): steady(6 * 86400)},
        # One that has long, and a service that has none.
        {series("parley_tls_certificate_expiry_timestamp_seconds"): steady(30 * 86400)}
        | {series("parley_tls_certificate_expiry_timestamp_seconds", pod="plain"): steady(0)},
    ),
    "ParleyDefects": Case(
        {series("parley_rpc_server_defects_total"): growing(1)},
        {series("parley_rpc_server_defects_total"): steady(2)},
    ),
}


@pytest.fixture(name="rules", scope="module")
def _rules(render: Render) -> Document:
    values = {
        "mongodb": {"embedded": {"enabled": True}},
        "redis": {"embedded": {"enabled": True}},
        "inference": {"pool": {"settings": {"engine": "sim"}, "gpus": 0}},
        "metrics": {"rules": True},
    }
    found = next(d for d in render(values) if d["kind"] == "PrometheusRule")
    spec: Document = found["spec"]
    return spec


def _rule(rules: Document, alert: str) -> dict[str, Any]:
    return next(
        rule for group in rules["groups"] for rule in group["rules"] if rule["alert"] == alert
    )


def test_every_alert_has_a_case(rules: Document) -> None:
    assert {rule["alert"] for group in rules["groups"] for rule in group["rules"]} == set(CASES)


def test_prometheus_reads_the_rules(rules: Document, promtool: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    _run(promtool, "check", "rules", tmp_path / "rules.yaml")


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_on_what_it_is_for_alone(
    rules: Document, promtool: str, tmp_path: Path, alert: str
) -> None:
    rule, case = _rule(rules, alert), CASES[alert]
    alone = {"groups": [{"name": "one", "rules": [rule]}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(alone))
    fired = {
        "exp_labels": rule["labels"] | case.labels,
        "exp_annotations": rule["annotations"],
    }
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [_test(alert, case.fires, [fired]), _test(alert, case.quiet, [])],
    }
    (tmp_path / "test.yaml").write_text(json.dumps(tests))
    _run(promtool, "test", "rules", tmp_path / "test.yaml")


def _test(alert: str, given: dict[str, str], expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "alert_rule_test": [
            {"eval_time": f"{MINUTES - 1}m", "alertname": alert, "exp_alerts": expected}
        ],
    }


def _run(promtool: str, *arguments: str | Path) -> None:
    done = subprocess.run(
        [promtool, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
