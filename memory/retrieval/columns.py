"""Arrays that grow at their end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Column:
    """An array that grows at its end. What is not filled yet holds `empty`."""

    def __init__(self, kind: Any, empty: float = 0, width: int | None = None) -> None:
        self._empty = empty
        self._width = () if width is None else (width,)
        self._array = np.full((64, *self._width), empty, kind)
        self._filled = 0

    def append(self, values: NDArray[Any]) -> None:
        self.extend(len(values))
        self._array[self._filled - len(values) : self._filled] = values

    def extend(self, count: int) -> None:
        """Add empty places."""
        self._filled += count
        if self._filled >= len(self._array):
            larger = np.full((2 * self._filled, *self._width), self._empty, self._array.dtype)
            larger[: len(self._array)] = self._array
            self._array = larger

    @property
    def all(self) -> NDArray[Any]:
        return self._array[: self._filled]

    @property
    def padded(self) -> NDArray[Any]:
        """With one empty place at the end, which index -1 leads to."""
        return self._array[: self._filled + 1]
