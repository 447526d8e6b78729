"""What the processes of a stack are told."""

from pathlib import Path

import pytest

from parley_devstack import parts
from parley_devstack.config import StackConfig


def _engine(folder: Path, **settings: object) -> dict[str, str]:
    layout = parts.lay_out(StackConfig.in_folder(folder, **settings))
    return dict(next(plan for plan in layout.plans() if plan.kind == "inference").env)


OWN = {"COMPILE": "off", "DTYPE": "float32"}


@pytest.mark.parametrize(
    ("stack", "gpu", "given", "told"),
    [
        ({"engine": "vllm"}, False, {}, OWN),
        ({"engine": "vllm"}, False, {"COMPILE": "on"}, {"COMPILE": "on"}),
        ({"engine": "vllm"}, False, {"QUANTIZATION": "int8"}, {}),
        ({"engine": "vllm"}, True, {}, {}),
        ({"engine": "vllm", "model": "/models/other"}, False, {}, {}),
        ({"engine": "sim"}, False, {}, {}),
    ],
)
def test_the_small_model_runs_alike_on_every_cpu_unless_somebody_chooses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stack: dict[str, str],
    gpu: bool,
    given: dict[str, str],
    told: dict[str, str],
) -> None:
    monkeypatch.setattr(parts, "has_gpu", lambda: gpu)
    for name in parts.CHOICES:
        monkeypatch.delenv(parts.INFERENCE + name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(parts.INFERENCE + name, value)
    environment = _engine(tmp_path, **stack)
    found = {name: environment.get(parts.INFERENCE + name) for name in OWN}
    assert {name: value for name, value in found.items() if value} == told
