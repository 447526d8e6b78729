"""Reads the weights of a six-layer MiniLM out of its ONNX file.

Only the wire format's few fields that hold initialisers and matrix products are read,
so that neither `onnx` nor a second copy of the weights is needed. Integer weights
(`NAME_q` beside `NAME_scale`) are returned as float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parley_cache.semantic.embedding import ModelError

Floats = npt.NDArray[np.float32]

LAYERS = 6
_GRAPH, _NODE, _TENSOR = 7, 1, 5
_KINDS = {1: "<f4", 2: "u1", 3: "i1"}
# The order in which a layer multiplies by its weights, and their names in the file.
_PRODUCTS = (
    ("query", "attention.self.query"),
    ("key", "attention.self.key"),
    ("value", "attention.self.value"),
    ("out", "attention.output.dense"),
    ("up", "intermediate.dense"),
    ("down", "output.dense"),
)
_NORMS = (("norm1", "attention.output.LayerNorm"), ("norm2", "output.LayerNorm"))


def read_tensors(path: Path) -> dict[str, Any]:
    """Returns the encoder's weights by name: `position`, `0.query.w`, …, `5.norm2.b`.

    A matrix has the shape (in, out). The embeddings of words stay as they are: `word`
    times `word.scale`, a row at a time, saves 35 MB. Raises ModelError where the file is
    broken or of another architecture.
    """
    try:
        found, products = _read(memoryview(path.read_bytes()))
        return _named(found, products)
    except (OSError, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise ModelError(f"The weights in {path} cannot be read: {error}") from error


def _named(found: dict[str, npt.NDArray[np.generic]], products: list[str]) -> dict[str, Any]:
    def plain(name: str) -> Floats:
        return np.asarray(found[name], dtype=np.float32)

    def scaled(name: str) -> Floats:
        return np.asarray(found[f"{name}_q"], dtype=np.float32) * plain(f"{name}_scale")

    embeddings = "inner.embeddings."
    weights: dict[str, Any] = {
        "word": np.asarray(found[f"{embeddings}word_embeddings.weight_q"]),
        "word.scale": plain(f"{embeddings}word_embeddings.weight_scale"),
        "position": scaled(f"{embeddings}position_embeddings.weight")
        + plain(f"{embeddings}token_type_embeddings.weight")[0],
        "norm.w": plain(f"{embeddings}LayerNorm.weight"),
        "norm.b": plain(f"{embeddings}LayerNorm.bias"),
    }
    matrices = [name for name in products if f"{name}_q" in found]
    if len(matrices) != LAYERS * len(_PRODUCTS):
        raise ValueError(f"it holds {len(matrices)} matrices, not {LAYERS * len(_PRODUCTS)}")
    for layer in range(LAYERS):
        prefix = f"inner.encoder.layer.{layer}."
        for place, (short, long) in enumerate(_PRODUCTS):
            weights[f"{layer}.{short}.w"] = scaled(matrices[layer * len(_PRODUCTS) + place])
            weights[f"{layer}.{short}.b"] = plain(f"{prefix}{long}.bias")
        for short, long in _NORMS:
            weights[f"{layer}.{short}.w"] = plain(f"{prefix}{long}.weight")
            weights[f"{layer}.{short}.b"] = plain(f"{prefix}{long}.bias")
    return weights


def _read(data: memoryview) -> tuple[dict[str, npt.NDArray[np.generic]], list[str]]:
    """Returns the initialisers by name, and the right-hand sides of the matrix products."""
    graphs = [v for f, v in _fields(data) if f == _GRAPH and isinstance(v, memoryview)]
    if not graphs:
        raise ValueError("it holds no graph")
    tensors: dict[str, npt.NDArray[np.generic]] = {}
    products: list[str] = []
    for field, value in _fields(graphs[0]):
        if field == _TENSOR and isinstance(value, memoryview):
            read = _tensor(value)
            if read is not None:
                tensors[read[0]] = read[1]
        elif field == _NODE and isinstance(value, memoryview):
            parts = list(_fields(value))
            if any(
                f == 4 and isinstance(v, memoryview) and bytes(v) == b"MatMul" for f, v in parts
            ):
                inputs = [bytes(v) for f, v in parts if f == 1 and isinstance(v, memoryview)]
                products.append(inputs[1].decode())
    return tensors, products


def _tensor(data: memoryview) -> tuple[str, npt.NDArray[np.generic]] | None:
    """Returns name and values of an initialiser; None for a kind that holds no weights."""
    shape: list[int] = []
    kind, name, raw = 0, "", memoryview(b"")
    for field, value in _fields(data):
        if isinstance(value, int):
            if field == 1:
                shape.append(value)
            elif field == 2:
                kind = value
        elif field == 8:
            name = bytes(value).decode()
        elif field == 9:
            raw = value
    if kind not in _KINDS:
        return None
    return name, np.frombuffer(raw, _KINDS[kind]).reshape(shape)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields each field's number and value. Raises IndexError or ValueError at broken ones."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            number, at = _varint(data, at)
            yield tag >> 3, number
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"it has a field of kind {kind}")
        if at + size > len(data):
            raise ValueError("it ends in the middle of a field")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("it has a number of more than 64 bits")
