"""Windows whose one vector is near that of a query, found by LanceDB or Qdrant."""

import jax
import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.models.heads.head import Head
from glscl_jax.search.lance_vectors import LanceVectors
from glscl_jax.search.qdrant_vectors import QdrantVectors
from glscl_jax.search.scan import Windows
from glscl_jax.search.store import Store
from glscl_jax.search.vectors import Vectors

_ROWS = 2048


class Neighbours:
    """One vector a window, in an engine that finds the nearest.

    Args:
      vectors: the engine's.
    """

    def __init__(self, vectors: Vectors):
        self._vectors = vectors

    @classmethod
    def of(cls, store: Store) -> "Neighbours":
        """Those of an index, where it says that they are.

        Raises:
          UserError: what they need is not installed, or the address is none.
        """
        about = store.about
        if not (address := about.get("qdrant")):
            return cls(LanceVectors(store.folder))
        return cls(QdrantVectors.at(address, about["collection"], about["generation"]))

    @property
    def there(self) -> bool:
        """Whether the index has any."""
        return self._vectors.there

    def bring_up_to_date(self, head: Head, windows: Windows, rows: np.ndarray) -> int:
        """Adds vectors of windows that have none and takes out those of windows that are gone.

        Args:
          head: which makes them.
          windows: whose features are mapped.
          rows: int64, the windows that there are.

        Returns:
          how many were added.

        Raises:
          UserError: the head has no one vector, or the engine is not reached.
        """
        known = self._vectors.rows()
        gone, new = np.setdiff1d(known, rows), np.setdiff1d(rows, known)
        if len(gone):
            self._vectors.remove(gone)
        make = jax.jit(head.video_vector)
        for start in range(0, len(new), _ROWS):
            some = new[start : start + _ROWS]
            part = jax.tree.map(lambda x, n=some: np.asarray(x[n]), windows.features)
            vectors = make(part)
            if vectors is None:
                raise UserError(f"--neighbours: the head {head.name} has no one vector for them")
            self._vectors.add(some, np.asarray(vectors, np.float32))
        if len(new) or len(gone):
            self._vectors.settle(len(rows))
        return len(new)

    def nearest(self, vector: np.ndarray, count: int, rows: np.ndarray) -> np.ndarray:
        """Rows of the nearest windows, and of all that have no vector yet; int64, ascending.

        Args:
          vector: float32 [E], of the query.
          count: how many.
          rows: int64, ascending, the windows that are asked for.

        Raises:
          UserError: the index has no vectors, or the engine is not reached.
        """
        if not self.there:
            raise UserError(
                "--candidates: the index has no neighbours: run python -m glscl_jax.search index"
                " with --neighbours once, or leave the flag out, for an exact scan"
            )
        known = self._vectors.rows()
        late = np.setdiff1d(rows, known)
        if not (there := len(rows) - len(late)):
            return late
        among = rows if there < len(known) else None
        return np.union1d(self._vectors.nearest(vector, min(count, there), among), late)

    def sweep(self) -> None:
        """Removes what is left of numberings of the windows before this one."""
        self._vectors.sweep()
