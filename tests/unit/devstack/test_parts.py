"""What the processes of a stack are told."""

from pathlib import Path

import pytest

from parley_devstack import parts
from parley_devstack.config import StackConfig


def _engine(folder: Path, **settings: object) -> dict[str, str]:
    layout = parts.lay_out(StackConfig.in_folder(folder, **settings))
    return dict(next(plan for plan in layout.plans() if plan.kind == "inference").env)


@pytest.mark.parametrize(
    ("engine", "gpu", "given", "told"),
    [
        ("vllm", False, None, "off"),
        ("vllm", False, "on", "on"),
        ("vllm", True, None, None),
        ("sim", False, None, None),
    ],
)
def test_a_model_is_compiled_on_a_cpu_only_when_somebody_asks_for_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    gpu: bool,
    given: str | None,
    told: str | None,
) -> None:
    monkeypatch.setattr(parts, "has_gpu", lambda: gpu)
    monkeypatch.delenv(parts.COMPILE, raising=False)
    if given is not None:
        monkeypatch.setenv(parts.COMPILE, given)
    assert _engine(tmp_path, engine=engine).get(parts.COMPILE) == told
