"""Adapters are judged by what their folders hold, before the model is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from parley_inference.engine.adapters import Adapter, read_adapters
from parley_kit.errors import StartupError
from support.lora import BASE, RANK, make_adapter, write_adapter
from support.safetensors import write_floats, zeros

CONFIG = {
    "hidden_size": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 2,
}
QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return make_adapter(tmp_path, tmp_path / "adapter")


def read(folder: Path, **given: Any) -> Adapter:
    options: dict[str, Any] = {"max_rank": 16, "base_model": "", "shapes": {}}
    (found,) = read_adapters({"odd": folder}, **(options | given))
    return found


def test_an_adapter_is_told_by_its_content(folder: Path, tmp_path: Path) -> None:
    found = read(folder, base_model=BASE, shapes={QUERY: (6, 6)})
    assert (found.name, found.folder, found.rank) == ("odd", folder, RANK)
    assert read(folder).revision == found.revision
    assert read(make_adapter(tmp_path, tmp_path / "other", seed=6)).revision != found.revision


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_rank": 4}, "its rank is 8, and MAX_ADAPTER_RANK is 4"),
        ({"base_model": "another"}, f"its base is '{BASE}', and ADAPTER_BASE_MODEL is 'another'"),
        ({"shapes": {QUERY: (6, 12)}}, r"made for another model: .*q_proj is 6 by 6.* 6 by 12"),
        ({"shapes": {QUERY: (12, 6)}}, "made for another model"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    folder: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(StartupError, match=f"the adapter odd cannot be served: .*{said}"):
        read(folder, **given)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "describes no LoRA adapter"),
        ({"r": 0}, "gives no rank"),
        ({"r": "8"}, "gives no rank"),
        ({"r": 4}, "do not have its rank, 4"),
    ],
)
def test_a_configuration_that_says_something_else_is_refused(
    folder: Path, tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    other = tmp_path / "other"
    write_adapter(other, **config)
    (folder / "adapter_model.safetensors").rename(other / "adapter_model.safetensors")
    with pytest.raises(StartupError, match=said):
        read(other)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(StartupError, match=f"{missing} cannot be read: No such file"):
        read(folder)


def test_weights_that_are_cut_off_are_refused(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StartupError, match="is not whole"):
        read(folder)


def test_weights_of_another_kind_are_refused(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    write_floats(path, {"base_model.model.lm_head.weight": zeros(2, 2)})
    with pytest.raises(StartupError, match="holds no LoRA weights"):
        read(folder)
    write_floats(path, {"m.lora_A.weight": zeros(RANK, 2)})
    with pytest.raises(StartupError, match="do not have its rank"):
        read(folder)


def test_a_configuration_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(StartupError, match="is not JSON"):
        read(folder)
