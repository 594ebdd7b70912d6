"""An index to ask: from sentences, videos or pictures to windows."""

import dataclasses
import os
import pathlib
import threading
from collections.abc import Sequence

import jax
import numpy as np

from glscl_jax import ranges
from glscl_jax.errors import UserError
from glscl_jax.models.heads.features import Features, count_of
from glscl_jax.ranges import OneOf, Optional, Whole
from glscl_jax.retriever import Retriever
from glscl_jax.search import candidates as nearest
from glscl_jax.search import location, provenance, question, visual_query
from glscl_jax.search.hit import Answer, Hit
from glscl_jax.search.index_run import TIMES
from glscl_jax.search.location import Location
from glscl_jax.search.neighbours import Neighbours
from glscl_jax.search.scan import Scan, windows_of
from glscl_jax.search.store import Snapshot, Store

MOST_HITS = 1000
# Sentences that are encoded at once.
_ENCODED = 32
_RANGES = {
    "top": Whole(1, MOST_HITS),
    "candidates": Optional(Whole(1)),
    "proof": OneOf(nearest.PROOFS),
}


@dataclasses.dataclass(frozen=True)
class _Now:
    """What there is to search at one time.

    Attributes:
      version: of the store.
      snapshot: its windows.
      scan: of their features.
    """

    version: tuple[int, int]
    snapshot: Snapshot
    scan: Scan


def open(
    directory: str | os.PathLike,
    *,
    checkpoint: str | os.PathLike | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> "Index":
    """Opens an index that `search index` made, with its checkpoint.

    Args:
      directory: of the index, or its address in a bucket, of which this machine gets a copy.
      checkpoint: where its checkpoint lies now; by default where it was.
      mesh: the devices that score; by default all of this process.

    Raises:
      UserError: there is none, it is damaged, or the checkpoint is another.
    """
    place = location.to_read(directory)
    with place.named():
        store = Store.open(place.path)
        about = store.about
        model = provenance.load_for(
            about["made_of"],
            checkpoint or about["checkpoint"],
            about.get("step") if checkpoint is None else None,
            f"--index {place.path}",
        )
    return Index(store, model, mesh, place)


class Index:
    """Windows of videos, and the model that ranks them.

    What another process adds or takes out is seen by the next query.

    Attributes:
      model: a `Retriever`.
      videos: the folder.
    """

    def __init__(self, store: Store, model: Retriever, mesh=None, place: Location | None = None):
        self.model, self._store, self._mesh = model, store, mesh
        self._place = place or location.LocalFolder(store.directory)
        self._lock = threading.Lock()
        self._now: _Now | None = None

    @property
    def videos(self) -> pathlib.Path:
        """The folder that it is of: of videos, or a prepared data set."""
        return pathlib.Path(self._store.about["videos"])

    @property
    def is_prepared(self) -> bool:
        """Whether it is of a prepared data set, whose clips have no file to show or play."""
        return self._store.is_prepared

    @property
    def reading(self) -> dict:
        """How its windows were read: `window_reader.Reading`, as JSON."""
        return self._store.about["made_of"]["reading"]

    def __len__(self) -> int:
        """How many windows there are."""
        return len(self._current().snapshot.rows)

    @property
    def columns(self) -> list[str]:
        """The columns that a filter may name, with their types: "year int64"."""
        schema = self._current().snapshot.table.schema
        hidden = ("row", "windows")
        return [f"{field.name} {field.type}" for field in schema if field.name not in hidden]

    def query(self, sentence: str, **how) -> Answer:
        """The windows that fit a sentence best; `how` as `queries` takes it."""
        return self.queries([sentence], **how)[0]

    def queries(self, sentences: Sequence[str], **how) -> list[Answer]:
        """The windows that fit each of several sentences best.

        Args:
          sentences: at least one.
          how: top: how many windows (10). where: a filter of SQL over the columns. candidates:
            score so many of the nearest windows alone. proof: with candidates, whether to
            prove that they hold the best; one of `candidates.PROOFS`.

        Raises:
          UserError: a sentence, the filter or an option is not one.
        """
        asked = [question.sentence(one) for one in sentences]
        return self.search(self._encoded(asked), asked, **how)

    def _encoded(self, sentences: list[str]) -> Features:
        """Features of sentences; filled up to a power of two, so that few shapes are compiled."""
        count = len(sentences)
        filled = sentences + sentences[-1:] * ((1 << (count - 1).bit_length()) - count)
        found = self.model.encode_captions(filled, batch_size=_ENCODED)
        return jax.tree.map(lambda x: x[:count], found)

    def query_file(self, file: str | os.PathLike, **how) -> Answer:
        """The windows that are most like a video file or a picture; `how` as of `queries`.

        Raises:
          UserError: it cannot be read.
        """
        video = visual_query.read(self.model, file, self.reading)
        return self.search(self._as_text(video), [os.fspath(file)], **how)[0]

    def query_row(self, row: int, **how) -> Answer:
        """The windows that are most like one of the index: "more like this".

        Raises:
          UserError: there is none of this number.
        """
        now = self._current()
        place = np.searchsorted(now.snapshot.rows, row)
        if place == len(now.snapshot.rows) or now.snapshot.rows[place] != row:
            raise UserError(f"there is no window {row}: ask again")
        video = _rows(now.scan.windows.features, [row])
        record = now.snapshot.records([row])[0]
        name = f"{record['video']} {record['start']:g} s"
        return self.search(self._as_text(video), [name], **how)[0]

    def _as_text(self, video: Features) -> Features:
        """Videos in the place of sentences; raises a `UserError` where the head takes none."""
        found = self.model.head.as_text(video)
        if found is None:
            raise UserError(
                f"the head {self.model.head.name} ranks videos by sentences alone, not by a "
                "video or a picture: ask by a sentence"
            )
        return found

    def rank_sentences(self, file: str | os.PathLike, sentences: Sequence[str]) -> np.ndarray:
        """Scores of sentences for a video file or a picture, float32 [A]: video-to-text.

        Raises:
          UserError: it cannot be read, or a sentence is not one.
        """
        asked = [question.sentence(one) for one in sentences]
        video = visual_query.read(self.model, file, self.reading)
        return self.model.score(self._encoded(asked), video)[:, 0]

    def record(self, row: int) -> dict | None:
        """What is known of a window; None if there is none of this number."""
        snapshot = self._current().snapshot
        place = int(np.searchsorted(snapshot.rows, row))
        if place == len(snapshot.rows) or snapshot.rows[place] != row:
            return None
        return snapshot.table.slice(place, 1).to_pylist()[0]

    def search(
        self,
        text: Features,
        names: Sequence[str],
        *,
        top: int = 10,
        where: str | None = None,
        candidates: int | None = None,
        proof: str = "check",
    ) -> list[Answer]:
        """As `queries`, of features [A,...] that are there already.

        Args:
          text: of A queries, as the head makes them of texts.
          names: of the queries.
          top, where, candidates, proof: as of `queries`.

        Raises:
          UserError: the filter or an option is not one.
        """
        try:
            ranges.check({"top": top, "candidates": candidates, "proof": proof}, _RANGES)
        except ValueError as error:
            raise UserError(f"--{error}") from error
        now, rows = self._asked_for(where)
        if not len(rows):
            return [Answer(name, [], 0, True, 0) for name in names]
        found = self._best(now, text, rows, top, candidates, proof)
        return [
            Answer(
                name,
                self._hits(now, jax.tree.map(lambda x, n=number: x[n], text), one),
                len(rows),
                one.exact,
                one.scored,
            )
            for number, (name, one) in enumerate(zip(names, found, strict=True))
        ]

    def _asked_for(self, where: str | None) -> tuple[_Now, np.ndarray]:
        """What there is, and the rows of it for which a filter holds."""
        while True:
            now = self._current()
            if where is None or not where.strip():
                return now, now.snapshot.rows
            rows = self._store.where(where, now.snapshot)
            # Another process may have numbered all rows anew in between.
            if self._current() is now:
                return now, rows

    def _best(self, now: _Now, text, rows, top, count, proof) -> list[nearest.Found]:
        """The best rows of each query."""
        if count is None or count >= len(rows):
            best = now.scan.top(text, top, rows)
            return [
                nearest.Found(items, scores, True, len(rows))
                for items, scores in zip(best.items, best.scores, strict=True)
            ]
        near = Neighbours.of(self._store)
        singles = (jax.tree.map(lambda x, n=n: x[n : n + 1], text) for n in range(count_of(text)))
        return [nearest.best(now.scan, near, one, rows, top, count, proof) for one in singles]

    def _hits(self, now: _Now, text: Features, found: nearest.Found) -> list[Hit]:
        head = self.model.head
        records = now.snapshot.records(found.rows)
        video = _rows(now.scan.windows.features, found.rows)
        weights = head.frame_importance(text, video)
        times = now.snapshot.arrays[TIMES][found.rows]
        scored = zip(found.scores, records, times, weights, strict=True)
        return [
            Hit.of(rank, float(score), record, when, looked)
            for rank, (score, record, when, looked) in enumerate(scored, 1)
        ]

    def _current(self) -> _Now:
        """What is newest."""
        with self._lock, self._place.named():
            self._place.refresh()
            version = self._store.version()
            if self._now is None or self._now.version != version:
                snapshot = self._store.snapshot()
                arrays = dict(snapshot.arrays)
                arrays.pop(TIMES, None)
                scan = None
                if arrays:
                    head = self.model.head
                    scan = Scan(windows_of(head, arrays), head, mesh=self._mesh)
                self._now = _Now(version, snapshot, scan)
            return self._now


def _rows(features: Features, rows: Sequence[int]) -> Features:
    """Some rows of features, on the host."""
    return jax.tree.map(lambda x: np.asarray(x[np.asarray(rows)]), features)
