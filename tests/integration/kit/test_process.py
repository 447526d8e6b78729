"""A process stops on a signal, at once on a second, and says why it cannot start."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.ports import occupied_port

pytestmark = pytest.mark.integration

PRELUDE = """
import asyncio, sys
from parley_kit.process import run
from parley_kit.rpc.server import RpcServer
from parley_kit.admin import AdminServer
"""

ORDERLY = """
async def main(stop):
    print("up", flush=True)
    await stop.wait()
    print("down", flush=True)
"""

STUCK = """
async def main(stop):
    print("up", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    await asyncio.Event().wait()
"""


@contextlib.contextmanager
def program(body: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``main`` of ``body`` as a process; it is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{PRELUDE}\n{body}\nsys.exit(run(main))"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=5)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_main_that_returns_ends_the_process_well() -> None:
    with program("async def main(stop): print('done')") as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "done\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_event(number: signal.Signals) -> None:
    with program(ORDERLY) as process:
        assert line_of(process) == "up"
        process.send_signal(number)
        assert line_of(process) == "down"
        assert process.wait(5) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_at_once(number: signal.Signals, code: int) -> None:
    with program(STUCK) as process:
        assert line_of(process) == "up"
        process.send_signal(signal.SIGTERM)
        assert line_of(process) == "stopping"
        process.send_signal(number)
        assert process.wait(5) == code


@pytest.mark.parametrize(
    "start",
    [
        "await RpcServer(host='127.0.0.1', port={port}, services=[]).start()",
        "await AdminServer('127.0.0.1', {port}, lambda: True).start()",
        "await asyncio.start_server(lambda r, w: None, '127.0.0.1', {port})",
    ],
)
def test_a_port_in_use_is_a_sentence_and_exit_3(start: str) -> None:
    with (
        occupied_port() as port,
        program(f"async def main(stop): {start.format(port=port)}") as process,
    ):
        out, err = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "in use" in err
    assert str(port) in err
    assert "Traceback" not in out + err


def test_a_defect_is_logged_and_exit_1() -> None:
    with program("async def main(stop): raise ValueError('what')") as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "ValueError: what" in err


def test_wrong_settings_are_sentences_and_exit_2() -> None:
    body = """
import os
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from parley_kit.config import ServiceSettings, load_settings
class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="PARLEY_ODD_")
os.environ["PARLEY_ODD_PORT"] = "seven"
load_settings(Settings)
"""
    with program(body) as process:
        out, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("PARLEY_ODD_PORT: ")
    assert len(err.splitlines()) == 1
