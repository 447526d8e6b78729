"""Looks at weights before a model is loaded from them: safetensors files, by their headers alone.

A file that is cut off or missing is told in a sentence within milliseconds, where the engine would
find out after minutes, in a process of its own.
"""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

Shape = tuple[int, ...]

_LENGTH: Final = struct.Struct("<Q")
# The format's own bound.
_MAX_HEADER_BYTES: Final = 100_000_000


class BadWeights(ValueError):
    """Why a file cannot be served, as a sentence."""


def read_shapes(path: Path) -> dict[str, Shape]:
    """The shape of each tensor of a file. Raises BadWeights if the file is not whole."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(_LENGTH.size)
            length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
            if not 2 <= length <= min(_MAX_HEADER_BYTES, size - _LENGTH.size):
                raise BadWeights(f"{path} is no safetensors file, or is cut off")
            header = json.loads(file.read(length))
    except OSError as error:
        raise BadWeights(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, BadWeights):
            raise
        raise BadWeights(f"{path} is no safetensors file: its header is damaged") from error
    shapes, data = _read_header(path, header)
    if size != _LENGTH.size + length + data:
        wanted = _LENGTH.size + length + data
        raise BadWeights(f"{path} is not whole: it has {size} bytes and should have {wanted}")
    return shapes


def _read_header(path: Path, header: Any) -> tuple[dict[str, Shape], int]:
    """Shapes, and how many bytes of data there should be."""
    shapes: dict[str, Shape] = {}
    ends = [0]
    try:
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            begin, end = tensor["data_offsets"]
            shape = tuple(map(int, tensor["shape"]))
            bits = math.prod(shape) * _width(tensor["dtype"])
            if not 0 <= begin <= end or (end - begin) * 8 != bits:
                raise BadWeights(f"{path} is damaged: {name} has no {end - begin} bytes")
            shapes[name] = shape
            ends.append(end)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, BadWeights):
            raise
        raise BadWeights(f"{path} is no safetensors file: its header is damaged") from error
    return shapes, max(ends)


def _width(dtype: str) -> int:
    """Bits of an element: of `BF16`, `F8_E4M3`, `I64`, `BOOL`."""
    return 8 if dtype == "BOOL" else int(dtype.partition("_")[0].lstrip("BFCIU"))


def check_folder(folder: Path) -> dict[str, Shape]:
    """The shapes of all tensors in a model's folder; empty if it has no safetensors.

    Raises BadWeights for a file that is not whole, or that the index names and is not there.
    """
    for index in folder.glob("*.safetensors.index.json"):
        for name in sorted(_indexed(index)):
            if not (folder / name).is_file():
                raise BadWeights(f"{folder} lacks {name}, which {index.name} names")
    shapes: dict[str, Shape] = {}
    for path in sorted(folder.glob("*.safetensors")):
        shapes |= read_shapes(path)
    return shapes


def _indexed(index: Path) -> set[str]:
    try:
        weight_map: Mapping[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        return set(weight_map.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadWeights(f"{index} is damaged") from error
