"""Weights that are cut off, missing or damaged are told before anything is loaded from them."""

import json
from pathlib import Path

import pytest

from parley_inference.engine.weights import BadWeights, check_folder, read_shapes
from support.safetensors import write_floats, zeros


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_floats(tmp_path / "model.safetensors", {"a": zeros(2, 3), "b": zeros(4)})


def test_shapes_are_read_from_the_header(weights: Path) -> None:
    assert read_shapes(weights) == {"a": (2, 3), "b": (4,)}
    assert check_folder(weights.parent) == {"a": (2, 3), "b": (4,)}


@pytest.mark.parametrize(
    "dtype", ["BF16", "F16", "I16", "U16", "F8_E4M3", "F64", "C64", "F4", "BOOL", "U8"]
)
def test_every_type_has_its_width(weights: Path, dtype: str) -> None:
    bits = {"F8_E4M3": 8, "BOOL": 8, "U8": 8, "F4": 4, "F64": 64, "C64": 64}.get(dtype, 16)
    _rewrite(weights, {"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, bits]}}, bytes(bits))
    assert read_shapes(weights) == {"a": (8,)}


def _rewrite(path: Path, header: object, data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("left", [0, 4, 8, 20, -1])
def test_a_file_that_is_cut_off_is_refused(weights: Path, left: int) -> None:
    weights.write_bytes(weights.read_bytes()[:left])
    with pytest.raises(BadWeights, match=r"cut off|not whole"):
        check_folder(weights.parent)


@pytest.mark.parametrize(
    "header",
    [
        [1],
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"a": {"dtype": "what", "shape": [2], "data_offsets": [0, 8]}},
        {"a": {"shape": [2]}},
        {"a": 1},
    ],
)
def test_a_damaged_header_is_refused(weights: Path, header: object) -> None:
    _rewrite(weights, header, bytes(8))
    with pytest.raises(BadWeights, match="damaged"):
        read_shapes(weights)


def test_a_header_that_is_no_json_is_refused(weights: Path) -> None:
    whole = weights.read_bytes()
    weights.write_bytes(whole[:8] + b"x" + whole[9:])
    with pytest.raises(BadWeights, match="damaged"):
        read_shapes(weights)


def test_a_part_that_the_index_names_has_to_be_there(weights: Path) -> None:
    index = weights.parent / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "c": "more"}}))
    with pytest.raises(BadWeights, match=r"lacks more, which .*index\.json names"):
        check_folder(weights.parent)
    index.write_text("[]")
    with pytest.raises(BadWeights, match="damaged"):
        check_folder(weights.parent)


def test_a_folder_without_safetensors_is_the_engines_to_judge(tmp_path: Path) -> None:
    assert check_folder(tmp_path) == {}
