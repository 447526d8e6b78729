"""The load test and the benchmark, run as an operator runs them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from parley_devstack.stack import Stack
from support.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

OURS = ("HOST", "API_KEY", "USERS", "DURATION", "WORKERS", "PROMPTS", "THRESHOLDS", "REPORTS")


def run(*arguments: str) -> tuple[int, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in OURS and not name.startswith("LOCUST")
    }
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
        check=False,
    )
    return done.returncode, done.stdout


def load(host: str, folder: Path, *more: str) -> tuple[str, ...]:
    return (
        *("parley_loadtest", "--host", host, "--reports", str(folder)),
        *("--users", "4", "--duration", "5s", *more),
        *("--", "--think", "0.05", "--seed", "7"),
    )


def test_a_load_test_reports_what_people_felt(sim_stack: Stack, tmp_path: Path) -> None:
    code, out = run(
        *load(
            sim_stack.url,
            tmp_path,
            *("--hit-share", "0.7", "--workers", "2"),
            *("--thresholds", "errors<=0%,requests>4,ttft.p50@miss<30s,tokens.max>1"),
        )
    )
    assert code == 0, out
    assert "MISSED" not in out
    [report] = list(tmp_path.glob("*/report.html"))
    assert "TTFT ms (miss)" in report.read_text("utf-8")
    with report.with_name("report_stats.csv").open(newline="") as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert int(rows["TTFT ms (exact)"]["Request Count"]) >= 1
    assert int(rows["inter-token µs (miss)"]["Request Count"]) >= 1
    assert not report.with_name("failures.jsonl").exists()


def test_a_missed_threshold_has_an_exit_code_of_its_own(sim_stack: Stack, tmp_path: Path) -> None:
    code, out = run(*load(sim_stack.url, tmp_path, "--thresholds", "ttft.p50<1ms"))
    assert code == 3, out
    assert "MISSED   ttft.p50<1ms" in out


def test_failures_are_told_in_full(tmp_path: Path) -> None:
    code, out = run(*load(f"http://127.0.0.1:{free_port()}", tmp_path))
    assert code == 1, out
    assert "ConnectionRefusedError" in out
    [log] = list(tmp_path.glob("*/failures.jsonl"))
    first = orjson.loads(log.read_bytes().splitlines()[0])
    assert first["request"] == "POST /chat"


@pytest.mark.parametrize("wrong", [("--thresholds", "fast"), ("--prompts", "/nowhere")])
def test_wrong_options_are_told_in_a_sentence(tmp_path: Path, wrong: tuple[str, ...]) -> None:
    code, out = run(*load("http://127.0.0.1:1", tmp_path, *wrong))
    assert code == 2, out
    assert wrong[1] in out


def test_the_benchmark_ends_with_its_comparison(tmp_path: Path) -> None:
    code, out = run(
        *("parley_loadtest.bench", "--rounds", "1", "--seconds", "0.1"),
        *("--concurrency", "2", "--tokens", "40", "--only", "on"),
    )
    assert code == 0, out
    tail = out[out.index("Speed (medians") :]
    for word in ("streamed tokens", "short requests", "engine", "session", "gateway", "mongodb"):
        assert word in tail
    assert "CPU milliseconds per 1,000 tokens" in tail
