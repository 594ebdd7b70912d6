"""Where vectors are kept by their windows' numbers, whichever engine does it."""

from collections.abc import Callable
from typing import Protocol

import numpy as np


class Vectors(Protocol):
    """Vectors of unit length, one a window, in an engine."""

    @property
    def there(self) -> bool:
        """Whether there are any."""

    def rows(self) -> np.ndarray:
        """int64, the windows that have one, in any order."""

    def add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Keeps vectors, float32 [n,E], of windows that have none."""

    def remove(self, rows: np.ndarray) -> None:
        """Takes those of windows out."""

    def settle(self, count: int) -> None:
        """Makes what finds them fast, or takes what is new into it; there are so many."""

    def nearest(self, vector: np.ndarray, count: int, among: np.ndarray | None) -> np.ndarray:
        """int64, about the nearest by the cosine, the nearest first.

        Args:
          vector: float32 [E].
          count: how many, no more than there are (`among`).
          among: the windows that are asked for, ascending; None for all.
        """

    def sweep(self) -> None:
        """Removes what was kept of the index before its windows were numbered anew."""


def widened(
    search: Callable[[int], np.ndarray], count: int, among: np.ndarray, total: int
) -> np.ndarray:
    """The nearest of some windows, by an engine that does not know of them.

    What a filter leaves out is found, too, and dropped: so more is looked for until enough is left.

    Args:
      search: from how many to the nearest of all.
      count: how many of `among`.
      among: the windows that are asked for.
      total: how many there are in all.
    """
    wanted = count
    while True:
        near = search(min(wanted, total))
        found = near[np.isin(near, among)][:count]
        if len(found) >= count or wanted >= total:
            return found
        wanted *= 4
