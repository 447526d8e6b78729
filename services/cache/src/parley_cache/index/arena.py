"""Rows of vectors in one growing matrix, so that a million tiny spaces stay cheap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from parley_cache.index.base import Vector

_FIRST_ROWS = 256


class Arena:
    """A matrix whose free rows are used again. It doubles, up to `max_rows`."""

    def __init__(self, dimensions: int, max_rows: int) -> None:
        self._max_rows = max_rows
        self._rows: npt.NDArray[np.float32] = np.empty(
            (min(_FIRST_ROWS, max_rows), dimensions), dtype=np.float32
        )
        self._free: list[int] = []
        self._end = 0

    @property
    def held_bytes(self) -> int:
        """Memory of the matrix."""
        return int(self._rows.nbytes)

    def put(self, vector: Vector, row: int | None = None) -> int:
        """Keep a vector, in a row that is given or free; give the row.

        Raises:
            MemoryError: every row is taken.
        """
        if row is None:
            row = self._take()
        self._rows[row] = vector
        return row

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        if self._end >= self._max_rows:
            raise MemoryError("every row is taken")
        if self._end == len(self._rows):
            grown = np.empty(
                (min(2 * self._end, self._max_rows), self._rows.shape[1]), dtype=np.float32
            )
            grown[: self._end] = self._rows
            self._rows = grown
        self._end += 1
        return self._end - 1

    def give_back(self, row: int) -> None:
        """Let a row be used again."""
        self._free.append(row)

    def at(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Give a copy of rows, shape (len(rows), dimensions)."""
        return self._rows[np.asarray(rows, dtype=np.intp)]
