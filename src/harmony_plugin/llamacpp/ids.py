"""A list of token ids that grows at its end and is compared fast."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["Ids"]


class Ids:
    """Ids as numpy has them, with room to grow. A view stays as it is when more are added."""

    __slots__ = ("_array", "_count")

    def __init__(self, ids: Iterable[int] = ()) -> None:
        import numpy as np

        self._array: Any = np.array(ids if isinstance(ids, list | np.ndarray) else list(ids), dtype=np.intc)
        self._count = len(self._array)

    def __len__(self) -> int:
        return self._count

    def view(self, begin: int = 0, end: int | None = None) -> Any:
        """The ids from `begin` to `end`, as an array that shares their memory."""
        return self._array[begin : self._count if end is None else end]

    def append(self, token: int) -> None:
        if self._count == len(self._array):
            self._grow(1)
        self._array[self._count] = token
        self._count += 1

    def extend(self, ids: Any) -> None:
        end = self._count + len(ids)
        if end > len(self._array):
            self._grow(len(ids))
        self._array[self._count : end] = ids
        self._count = end

    def cut(self, length: int) -> None:
        """Keep the first `length`."""
        # Views that were given out must not see what comes in the place of these.
        self._array, self._count = self._array[:length].copy(), length

    def common(self, other: Ids) -> int:
        """How many ids at the beginning are the same."""
        size = min(self._count, other._count)
        if not size:
            return 0
        unequal = self._array[:size] != other._array[:size]
        first = int(unequal.argmax())
        return first if unequal[first] else size

    def _grow(self, more: int) -> None:
        import numpy as np

        array = np.empty(max(64, 2 * len(self._array), self._count + more), dtype=np.intc)
        array[: self._count] = self._array[: self._count]
        self._array = array
