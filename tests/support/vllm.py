"""A replica on vLLM with the small model, for tests.

`PARLEY_TEST_MODEL` names the model's folder; otherwise the one that `make run` has made is used.
"""

import os
from pathlib import Path

import psutil
import pytest
from parley.inference.v1 import inference_pb2 as pb

from parley_devstack.environments import inference
from parley_devstack.models import model_folder
from parley_devstack.paths import checkout
from support.inference import ReplicaProcess, generate_request

START_SECONDS = 400.0
MODEL = "smol"


def ask(text: str = "", **options: object) -> pb.GenerateRequest:
    return generate_request(text, model=MODEL, **options)


def processes_below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def vllm_process(folder: Path) -> ReplicaProcess:
    """A replica on vLLM, not started. Fails where the model or vLLM is missing."""
    model = Path(os.environ.get("PARLEY_TEST_MODEL") or model_folder(checkout()))
    python = inference(checkout(), gpu=False).python
    for needed in (model / "config.json", python):
        if not needed.exists():
            pytest.fail(f"{needed} is missing; `make setup` makes it, or set PARLEY_TEST_MODEL")
    settings = {
        "PARLEY_INFERENCE_ENGINE": "vllm",
        "PARLEY_INFERENCE_MODEL": str(model),
        "PARLEY_INFERENCE_MODEL_ID": MODEL,
        "PARLEY_INFERENCE_MAX_MODEL_LEN": "2048",
        "PARLEY_INFERENCE_MAX_NUM_SEQS": "16",
    }
    return ReplicaProcess(settings, folder / "log", python=str(python))


def assert_gone(processes: list[psutil.Process]) -> None:
    _, left = psutil.wait_procs(processes, timeout=5)
    assert not left
