"""Weights made on the spot, in the format that engines read: no tensor library is needed."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

Tensors = Mapping[str, tuple[tuple[int, ...], bytes]]


def write_floats(path: Path, tensors: Tensors) -> Path:
    """Write tensors of 32-bit floats: by name their shape and data."""
    header, at = {}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    data = b"".join(data for _, data in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def zeros(*shape: int) -> tuple[tuple[int, ...], bytes]:
    """A tensor of zeros."""
    size = 4
    for length in shape:
        size *= length
    return shape, bytes(size)
