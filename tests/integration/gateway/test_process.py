"""``python -m parley_gateway`` as a process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.poll import until_sync
from support.ports import free_ports, occupied_port

pytestmark = pytest.mark.integration

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")}


def _start(**settings: object) -> subprocess.Popen[str]:
    names = {f"PARLEY_GATEWAY_{name}": str(value) for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "parley_gateway"],
        env=ENVIRONMENT | names,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def ports() -> tuple[int, int]:
    first, second = free_ports(2)
    return first, second


@pytest.fixture
def running(ports: tuple[int, int]) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    process = _start(PORT=ports[0], ADMIN_PORT=ports[1], SHUTDOWN_GRACE_SECONDS=2)
    try:
        until_sync(lambda: _answers(f"http://127.0.0.1:{ports[0]}/healthz"), timeout=20)
        yield process, *ports
    finally:
        process.kill()
        process.communicate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code < 600
    except httpx.TransportError:
        return False


def test_it_serves_its_admin_port_and_ends_on_sigterm(
    running: tuple[subprocess.Popen[str], int, int],
) -> None:
    process, port, admin = running
    assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 503
    assert httpx.get(f"http://127.0.0.1:{admin}/readyz").status_code == 503
    httpx.get(f"http://127.0.0.1:{port}/chat/private-id")
    metrics = httpx.get(f"http://127.0.0.1:{admin}/metrics").text
    assert 'route="/chat/{chatID}"' in metrics
    assert "private-id" not in metrics
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert err == ""
    lines = [json.loads(line) for line in out.splitlines()]
    request = next(line for line in lines if line["message"] == "request")
    assert (request["status"], request["route"]) == (404, "/chat/{chatID}")
    assert request["request_id"]
    assert request["code"] == "not_found"
    assert "private-id" not in out


def test_a_stopping_gateway_is_not_ready_and_serves_on_until_that_is_noticed(
    ports: tuple[int, int],
) -> None:
    port, admin = ports
    process = _start(PORT=port, ADMIN_PORT=admin, DRAIN_DELAY_SECONDS=120)
    try:
        until_sync(lambda: _answers(f"http://127.0.0.1:{port}/healthz"), timeout=20)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert any("stopping" in line for line in process.stdout)
        # New connections, well inside the delay: balancers still send them.
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{admin}/readyz").status_code == 503
        assert process.poll() is None
        # A second signal waits for nothing.
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
        assert process.returncode == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def _refused(**settings: object) -> tuple[int, str]:
    process = _start(**settings)
    _, err = process.communicate(timeout=20)
    return process.returncode, err


def test_what_cannot_start_says_why_in_a_sentence(tmp_path: Path) -> None:
    code, err = _refused(HOST="0.0.0.0")
    assert code == 2
    assert "ALLOW_PUBLIC_NONE" in err
    with occupied_port() as port:
        code, err = _refused(PORT=port, ADMIN_PORT=0)
        assert (code, err.count("\n")) == (3, 1)
        assert str(port) in err
    code, err = _refused(AUTH="keys", KEYS_FILE=tmp_path / "none.json", PORT=0, ADMIN_PORT=0)
    assert (code, err.count("\n")) == (3, 1)
    assert "parley_gateway.keys create" in err
    (tmp_path / "bad.json").write_text("{}")
    code, err = _refused(AUTH="keys", KEYS_FILE=tmp_path / "bad.json", PORT=0, ADMIN_PORT=0)
    assert (code, err.count("\n")) == (3, 1)
