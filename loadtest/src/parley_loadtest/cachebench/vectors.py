"""Vectors to store and to ask with, made up and the same at every run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

DIMENSIONS = 384
_A_THEME = 20
_APART, _NEAR = 0.5, 0.02
_SEED = 7
_ROWS = 50_000


def write(folder: Path, count: int, asked: int) -> None:
    """Write `count` vectors in themes, and `asked` near some of them, into a folder."""
    numbers = np.random.default_rng(_SEED)
    themes = numbers.normal(size=(max(1, count // _A_THEME), DIMENSIONS)).astype(np.float32)
    stored = np.lib.format.open_memmap(
        folder / "stored.npy", mode="w+", dtype=np.float32, shape=(count, DIMENSIONS)
    )
    for start in range(0, count, _ROWS):
        rows = min(_ROWS, count - start)
        made = themes[numbers.integers(len(themes), size=rows)]
        made += _APART * numbers.normal(size=(rows, DIMENSIONS)).astype(np.float32)
        stored[start : start + rows] = made / np.linalg.norm(made, axis=1, keepdims=True)
    stored.flush()
    meant = numbers.integers(count, size=asked)
    near = stored[meant] + _NEAR * numbers.normal(size=(asked, DIMENSIONS)).astype(np.float32)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    np.save(folder / "asked.npy", near.astype(np.float32))
    np.save(folder / "meant.npy", meant.astype(np.int64))
