"""A replica on vLLM with the small model, for tests.

`PARLEY_TEST_MODEL` names the model's folder; otherwise the one that `make run` has made is used.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest
from parley.inference.v1 import inference_pb2 as pb

from parley_devstack.environments import inference
from parley_devstack.models import model_folder
from parley_devstack.paths import checkout
from support.inference import ReplicaProcess, generate_request
from support.poll import until
from support.stack import VLLM_MODEL as MODEL

START_SECONDS = 400.0


def ask(text: str = "", **options: object) -> pb.GenerateRequest:
    """A request to the model, unless ``options`` name another."""
    return generate_request(text, **({"model": MODEL} | options))


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def processes_below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def small_model() -> Path:
    """The folder of the model. Fails where it is missing."""
    model = Path(os.environ.get("PARLEY_TEST_MODEL") or model_folder(checkout()))
    if not (model / "config.json").exists():
        pytest.fail(f"{model} is missing; `make setup` makes it, or set PARLEY_TEST_MODEL")
    return model


def model_for_all(folder: Path) -> Path:
    """A copy of the model that everybody may read, as nobody in a container has to."""
    shutil.copytree(small_model(), folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def changed_model(folder: Path, **config: object) -> Path:
    """The model with another configuration; its other files are links."""
    model = small_model()
    folder.mkdir(parents=True)
    for path in model.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    described = json.loads((model / "config.json").read_text("utf-8"))
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(described | config), "utf-8")
    return folder


def int8_model(folder: Path) -> Path:
    """The model with its linear layers at eight bits; takes seconds."""
    python = inference(checkout(), gpu=False).python
    script = Path(__file__).parent / "int8_model.py"
    # -P: a module beside the script has the name of a package that it needs.
    subprocess.run([python, "-P", script, small_model(), folder], check=True, timeout=START_SECONDS)
    return folder


def vllm_process(folder: Path, **settings: object) -> ReplicaProcess:
    """A replica on vLLM, not started; ``settings`` by their names. Fails where vLLM is missing."""
    python = inference(checkout(), gpu=False).python
    if not python.exists():
        pytest.fail(f"{python} is missing; `make setup` makes it")
    values = {
        "engine": "vllm",
        "model": small_model() if "model" not in settings else "",
        "model_id": MODEL,
        "max_model_len": 2048,
        "max_num_seqs": 16,
        # However slow the machine.
        "grammar_seconds": 60,
    } | settings
    environment = {f"PARLEY_INFERENCE_{name.upper()}": str(value) for name, value in values.items()}
    command = (str(python), "-m", "parley_inference")
    return ReplicaProcess(environment, folder / "log", command)


async def ended(pid: int, seconds: float) -> None:
    """Wait until a process of a stack has ended. The stack, which tidies up then, is not asked."""
    process = psutil.Process(pid)
    await until(lambda: process.status() == psutil.STATUS_ZOMBIE, seconds, "the replica's end")


def assert_gone(processes: list[psutil.Process]) -> None:
    _, left = psutil.wait_procs(processes, timeout=5)
    assert not left
