"""How a measured process is told what to do: a line of JSON each way.

`{"do": "build"}` → `{"seconds": …}` and the like. Only the standard library and NumPy, so
that it runs in the peers' environment as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Do = Callable[..., Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Work:
    """What is stored and asked: texts with their vectors, one a row, of unit length."""

    stored: npt.NDArray[np.float32]
    asked: npt.NDArray[np.float32]
    """Each near the stored row that `meant` names."""
    meant: npt.NDArray[np.int64]

    @staticmethod
    def read(folder: Path) -> Work:
        """Read what `vectors.write` has written."""
        return Work(
            np.load(folder / "stored.npy", mmap_mode="r"),
            np.load(folder / "asked.npy"),
            np.load(folder / "meant.npy"),
        )

    @property
    def dimensions(self) -> int:
        """Of every vector."""
        return int(self.stored.shape[1])


def question(number: int) -> str:
    """The text of a stored row: none is like another, and all are as long as questions are."""
    return f"How do I set up the heating of house number {number} for the winter?"


def asked(number: int) -> str:
    """A question that means the same as a stored row."""
    return f"How can I set up the heating of house number {number} for the winter?"


def answer(number: int) -> str:
    """An answer of some 500 bytes."""
    return f"House {number}: " + "turn the valve, wait for the pump, and bleed each radiator. " * 8


def serve(actions: Mapping[str, Do]) -> None:
    """Obey until the input ends."""
    for line in sys.stdin:
        told = json.loads(line)
        done = actions[told.pop("do")](**told)
        sys.stdout.write(json.dumps(done) + "\n")
        sys.stdout.flush()
