"""Vectors in LanceDB, which lies in the index's folder.

Vectors are of unit length and the metric is the cosine: quantised indexes lose most neighbours by
the dot product of vectors that are not. The index (IVF_RQ) has a bit a number, and is made in a
twentieth of the time of one by product quantisation; of the many that it finds (`_REFINED`) the
vectors themselves are compared. Tests measure what of the true neighbours is left.
"""

import pathlib

import numpy as np
import pyarrow as pa

from glscl_jax.search import engine
from glscl_jax.search.vectors import widened
from glscl_jax.search.window_table import damaged

_NAME = "neighbours"
# From so many vectors on an index is made; of fewer all are looked at.
INDEXED = 20_000
_PROBED_SHARE, _LEAST_PROBED = 0.25, 16
# Of so many by a bit a number the vectors themselves are compared: of each asked, and in all.
_REFINED, _LEAST_REFINED = 5, 500
_DELETED = 1000


class LanceVectors:
    """The vectors of a folder; see `vectors.Vectors`."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._database = engine.module("lancedb").connect(str(folder))
        try:
            self._table = self._database.open_table(_NAME)
        except (ValueError, FileNotFoundError):
            self._table = None

    @property
    def there(self) -> bool:
        """Whether there are any."""
        return self._table is not None

    @property
    def indexed(self) -> bool:
        """Whether an index finds them."""
        return self.there and bool(self._table.list_indices())

    def rows(self) -> np.ndarray:
        """See there; raises a `UserError` where the table is damaged."""
        if self._table is None:
            return np.zeros(0, np.int64)
        try:
            return self._table.search().select(["row"]).to_arrow()["row"].to_numpy()
        except Exception as error:
            raise damaged(self._folder, error) from error

    def add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """See there."""
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        table = pa.table({"row": pa.array(rows, pa.int64()), "vector": flat})
        if self._table is None:
            self._table = self._database.create_table(_NAME, table)
        else:
            self._table.add(table)

    def remove(self, rows: np.ndarray) -> None:
        """See there."""
        gone = rows.tolist()
        for start in range(0, len(gone), _DELETED):
            listed = ", ".join(map(str, gone[start : start + _DELETED]))
            self._table.delete(f"row in ({listed})")

    def settle(self, count: int) -> None:
        """See there."""
        if self.indexed or count < INDEXED:
            self._table.optimize()
            return
        config = engine.module("lancedb.index").IvfRq(
            distance_type="cosine", num_partitions=_partitions(count)
        )
        self._table.create_index("vector", config=config)

    def nearest(self, vector: np.ndarray, count: int, among: np.ndarray | None) -> np.ndarray:
        """See there."""
        total, indexed = self._table.count_rows(), self.indexed

        def search(size: int) -> np.ndarray:
            query = self._table.search(vector).distance_type("cosine").limit(size)
            if indexed:
                query = query.refine_factor(_refined(size)).nprobes(_probes(total))
            return query.select(["row", "_distance"]).to_arrow()["row"].to_numpy()

        return search(count) if among is None else widened(search, count, among, total)

    def sweep(self) -> None:
        """Nothing: they go with the folder (`Store.sweep`)."""


def _probes(count: int) -> int:
    return max(_LEAST_PROBED, int(_PROBED_SHARE * _partitions(count)))


def _refined(count: int) -> int:
    return max(_REFINED, -(-_LEAST_REFINED // count))


def _partitions(count: int) -> int:
    return max(1, int(np.sqrt(count)))
