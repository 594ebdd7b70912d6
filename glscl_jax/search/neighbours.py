"""Windows whose one vector is near that of a query, found by LanceDB.

Vectors are of unit length and the metric is the cosine: quantised indexes lose most neighbours by
the dot product of vectors that are not. The index (IVF_RQ) has a bit a number, and is made in a
twentieth of the time of one by product quantisation; of the many that it finds (`_REFINED`) the
vectors themselves are compared. Tests measure what of the true neighbours is left.
"""

import pathlib

import jax
import numpy as np
import pyarrow as pa

from glscl_jax.errors import UserError
from glscl_jax.models.heads.head import Head
from glscl_jax.search import engine
from glscl_jax.search.scan import Windows
from glscl_jax.search.window_table import damaged

_NAME = "neighbours"
# From so many vectors on an index is made; of fewer all are looked at.
INDEXED = 20_000
_PROBED_SHARE, _LEAST_PROBED = 0.25, 16
# Of so many by a bit a number the vectors themselves are compared: of each asked, and in all.
_REFINED, _LEAST_REFINED = 5, 500
_ROWS = 2048


class Neighbours:
    """The vectors of a folder."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._database = engine.module("lancedb").connect(str(folder))
        try:
            self._table = self._database.open_table(_NAME)
        except (ValueError, FileNotFoundError):
            self._table = None

    @property
    def there(self) -> bool:
        """Whether the index has any."""
        return self._table is not None

    def bring_up_to_date(self, head: Head, windows: Windows, rows: np.ndarray) -> int:
        """Adds vectors of windows that have none and takes out those of windows that are gone.

        Args:
          head: which makes them.
          windows: whose features are mapped.
          rows: int64, the windows that there are.

        Returns:
          how many were added.

        Raises:
          UserError: the head has no one vector.
        """
        known = self._rows()
        if gone := np.setdiff1d(known, rows).tolist():
            for start in range(0, len(gone), 1000):
                listed = ", ".join(map(str, gone[start : start + 1000]))
                self._table.delete(f"row in ({listed})")
        new = np.setdiff1d(rows, known)
        make = jax.jit(head.video_vector)
        for start in range(0, len(new), _ROWS):
            some = new[start : start + _ROWS]
            part = jax.tree.map(lambda x, n=some: np.asarray(x[n]), windows.features)
            vectors = make(part)
            if vectors is None:
                raise UserError(f"--neighbours: the head {head.name} has no one vector for them")
            self._add(some, np.asarray(vectors, np.float32))
        if self._table is not None and (len(new) or gone):
            self._index(len(rows))
        return len(new)

    def nearest(self, vector: np.ndarray, count: int, rows: np.ndarray) -> np.ndarray:
        """Rows of the nearest windows, and of all that have no vector yet; int64, ascending.

        Args:
          vector: float32 [E], of the query.
          count: how many.
          rows: int64, ascending, the windows that are asked for.

        Raises:
          UserError: the index has no vectors.
        """
        if self._table is None:
            raise UserError(
                "--candidates: the index has no neighbours: run python -m glscl_jax.search index"
                " with --neighbours once, or leave the flag out, for an exact scan"
            )
        known = self._rows()
        late = np.setdiff1d(rows, known)
        # What a filter leaves out is found, too, and dropped: so more is looked for.
        wanted, found = count, np.zeros(0, np.int64)
        while len(known):
            size = min(wanted, len(known))
            query = self._table.search(vector).distance_type("cosine").limit(size)
            if self._table.list_indices():
                query = query.refine_factor(_refined(size)).nprobes(self._probes(len(known)))
            near = query.select(["row", "_distance"]).to_arrow()["row"].to_numpy()
            found = near[np.isin(near, rows)][:count]
            if len(found) >= min(count, len(rows) - len(late)) or wanted >= len(known):
                break
            wanted *= 4
        return np.union1d(found, late)

    def _rows(self) -> np.ndarray:
        if self._table is None:
            return np.zeros(0, np.int64)
        try:
            return self._table.search().select(["row"]).to_arrow()["row"].to_numpy()
        except Exception as error:
            raise damaged(self._folder, error) from error

    def _add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        table = pa.table({"row": pa.array(rows, pa.int64()), "vector": flat})
        if self._table is None:
            self._table = self._database.create_table(_NAME, table)
        else:
            self._table.add(table)

    def _index(self, count: int) -> None:
        """Makes the vector index, or takes what is new into it."""
        if self._table.list_indices() or count < INDEXED:
            self._table.optimize()
            return
        config = engine.module("lancedb.index").IvfRq(
            distance_type="cosine", num_partitions=_partitions(count)
        )
        self._table.create_index("vector", config=config)

    def _probes(self, count: int) -> int:
        return max(_LEAST_PROBED, int(_PROBED_SHARE * _partitions(count)))


def _refined(count: int) -> int:
    return max(_REFINED, -(-_LEAST_REFINED // count))


def _partitions(count: int) -> int:
    return max(1, int(np.sqrt(count)))
