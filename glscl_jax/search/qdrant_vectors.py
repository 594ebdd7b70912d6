"""Vectors in a Qdrant server, for what outgrows a machine.

A collection is of one index and of one numbering of its windows: NAME_GENERATION. Points have the
windows' numbers and nothing beside, as the index itself knows the rest: what a filter of SQL leaves
is asked for by numbers, where they are not too many to send.
"""

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.search import engine
from glscl_jax.search.vectors import widened

# The key of a server that asks for one; it is not written into the index.
KEY = "QDRANT_API_KEY"
# A request's numbers are sent as text, some 20 bytes each, and a server takes 32 MB at once.
_SENT_NUMBERS = 400_000
_LISTED, _SCROLLED, _DELETED = 20_000, 10_000, 10_000
# How many points a search of the graph keeps in sight, at least.
_SEEN = 256
_SECONDS = 120


class QdrantVectors:
    """The vectors of a collection; see `vectors.Vectors`.

    Args:
      client: a `qdrant_client.QdrantClient`.
      address: of its server, for messages.
      name, generation: of the collection.
    """

    def __init__(self, client: Any, address: str, name: str, generation: int):
        self._client, self._address, self._prefix = client, address, f"{name}_"
        self._name = f"{name}_{generation}"
        self._models = engine.module("qdrant_client.models", engine.QDRANT)
        self._known: np.ndarray | None = None

    @classmethod
    @functools.lru_cache(maxsize=4)
    def at(cls, address: str, name: str, generation: int) -> "QdrantVectors":
        """Those of a server; connected to once a process.

        Raises:
          UserError: it is no address.
        """
        library = engine.module("qdrant_client", engine.QDRANT)
        if not re.match(r"https?://[^/\s]+", address):
            raise UserError(
                f"--qdrant {address} is no address of a server: give one like http://localhost:6333"
            )
        client = library.QdrantClient(
            url=address,
            api_key=os.environ.get(KEY),
            timeout=_SECONDS,
            check_compatibility=False,
        )
        return cls(client, address, name, generation)

    @property
    def there(self) -> bool:
        """Whether the collection is."""
        with self._asked():
            return self._client.collection_exists(self._name)

    def rows(self) -> np.ndarray:
        """See there."""
        if not self.there:
            return np.zeros(0, np.int64)
        with self._asked():
            count = self._client.count(self._name).count
            # If another process took out as many as it added, what is new is not known of: windows
            # without a vector are scored at any rate.
            if self._known is None or len(self._known) != count:
                self._known = np.array(list(self._scrolled()), np.int64)
        return self._known

    def add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """See there."""
        models, width = self._models, vectors.shape[1]
        self._known = None
        with self._asked():
            if not self._client.collection_exists(self._name):
                how = models.VectorParams(size=width, distance=models.Distance.COSINE)
                self._client.create_collection(self._name, vectors_config=how)
            step = max(1, _SENT_NUMBERS // width)
            for start in range(0, len(rows), step):
                part = slice(start, start + step)
                points = models.Batch(ids=rows[part].tolist(), vectors=vectors[part].tolist())
                self._client.upsert(self._name, points, wait=True)

    def remove(self, rows: np.ndarray) -> None:
        """See there."""
        self._known = None
        gone = rows.tolist()
        with self._asked():
            for start in range(0, len(gone), _DELETED):
                listed = self._models.PointIdsList(points=gone[start : start + _DELETED])
                self._client.delete(self._name, listed, wait=True)

    def settle(self, count: int) -> None:
        """Nothing: the server makes its graph by itself."""

    def nearest(self, vector: np.ndarray, count: int, among: np.ndarray | None) -> np.ndarray:
        """See there."""
        if among is None or len(among) <= _LISTED:
            return self._search(vector, count, among)
        with self._asked():
            total = self._client.count(self._name).count
        return widened(lambda size: self._search(vector, size, None), count, among, total)

    def sweep(self) -> None:
        """See there."""
        with self._asked():
            for one in self._client.get_collections().collections:
                if one.name.startswith(self._prefix) and one.name != self._name:
                    self._client.delete_collection(one.name)

    def _search(self, vector: np.ndarray, count: int, among: np.ndarray | None) -> np.ndarray:
        models, only = self._models, None
        if among is not None:
            only = models.Filter(must=[models.HasIdCondition(has_id=among.tolist())])
        with self._asked():
            found = self._client.query_points(
                self._name,
                query=vector.tolist(),
                query_filter=only,
                search_params=models.SearchParams(hnsw_ef=max(_SEEN, 2 * count)),
                limit=count,
                with_payload=False,
            )
        return np.array([point.id for point in found.points], np.int64)

    def _scrolled(self) -> Iterator[int]:
        after = None
        while True:
            points, after = self._client.scroll(
                self._name, limit=_SCROLLED, offset=after, with_payload=False, with_vectors=False
            )
            yield from (point.id for point in points)
            if after is None:
                return

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """Makes a line of what goes wrong."""
        try:
            yield
        except Exception as error:
            told = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(
                f"--qdrant {self._address}: {told}: see that Qdrant runs there (a key that it asks"
                f" for is read from {KEY}), or keep neighbours in the index by --qdrant= with"
                " nothing behind it"
            ) from error
