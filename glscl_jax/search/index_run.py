"""One run over videos or clips: what is new is encoded and stored, what is gone taken out."""

import contextlib
import dataclasses
import fnmatch
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from glscl_jax.input_pipeline.decoding.video import VideoError, duration
from glscl_jax.input_pipeline.preparing.failures import FAILED_FILE
from glscl_jax.models.heads.features import Features
from glscl_jax.retriever import Retriever
from glscl_jax.runtime import progress
from glscl_jax.search import failed_windows, metadata, scan, video_folder
from glscl_jax.search.failed_windows import FailedWindow
from glscl_jax.search.index_options import Options
from glscl_jax.search.location import Location
from glscl_jax.search.neighbours import Neighbours
from glscl_jax.search.store import Store
from glscl_jax.search.window_reader import Reading, ReadWindow, read_all

if TYPE_CHECKING:
    from glscl_jax.search.prepared_split import PreparedSplit

TIMES = "times"


@dataclasses.dataclass(frozen=True)
class Report:
    """What an indexing did.

    Attributes:
      added, removed: windows.
      unchanged: videos that were there as they are.
      windows, videos: that there are now.
      failed: what could not be read.
      is_prepared: as of `Store`.
    """

    added: int
    removed: int
    unchanged: int
    windows: int
    videos: int
    failed: list[FailedWindow]
    is_prepared: bool


class IndexRun:
    """One indexing, with all that it needs.

    Args:
      store: the index.
      model: what encodes.
      reading: how videos are read.
      asked: the settings, with none left open but those that have no default.
      place: of the index.
    """

    def __init__(
        self,
        store: Store,
        model: Retriever,
        reading: Reading,
        asked: Options,
        place: Location,
    ):
        self._store, self._model, self._reading, self._asked = store, model, reading, asked
        self._place = place
        self._failed: list[FailedWindow] = []
        self._added = 0

    @functools.cached_property
    def _any_text(self) -> Features:
        """Features of some sentence, where those of videos alone are asked for."""
        return self._model.encode_captions("a")

    def run(self, found: list[video_folder.Video], told: metadata.Metadata) -> Report:
        """Brings the index up to date with the videos that were found, and what is told of them."""
        store = self._store
        self._reach_neighbours()
        self._metadata = told
        known = store.known()
        todo = video_folder.changes(found, known)
        removed = sum(len(known[name].starts) for name in todo.stale)
        store.remove(todo.stale)
        store.update_columns(self._metadata, todo.touched)
        stale = set(todo.stale)
        wanted = [
            (video, None if video.name in stale else known.get(video.name)) for video in todo.wanted
        ]
        if known:
            same = f"{todo.unchanged:,} videos are indexed already"
            print(f"{same}, {len(todo.stale):,} changed or went", flush=True)
        total = sum(self._expected(video, known) for video, known in wanted)
        if wanted:
            # Its threads wait for who takes their windows: whatever ends this, they are let go.
            with contextlib.closing(read_all(wanted, self._reading, self._workers)) as read:
                self._add_all(read, total)
        return self._finished(removed, todo.unchanged)

    def run_prepared(self, split: "PreparedSplit") -> Report:
        """Adds what is not there yet of a split."""
        from glscl_jax.search.prepared_split import FIELDS

        store, only = self._store, self._asked.only
        self._reach_neighbours()
        self._metadata = metadata.Metadata(FIELDS)
        known = store.known()
        stale = [name for name in known if only and not fnmatch.fnmatchcase(name, only)]
        store.update_columns(self._metadata, [])
        there = frozenset(known.keys() - set(stale))
        if there:
            print(f"{len(there):,} clips are indexed already", flush=True)
        frames = self._reading.num_frames
        read = split.windows(there, only, frames, self._workers, self._metadata)
        self._add_all(read, len(split) - len(there))
        store.remove(stale)
        return self._finished(len(stale), len(there))

    def _reach_neighbours(self) -> None:
        """Before hours of work, as it may be a server that is not reached."""
        if self._asked.neighbours:
            Neighbours.of(self._store).sweep()

    @property
    def _workers(self) -> int:
        return self._asked.workers or os.cpu_count() or 1

    def _add_all(self, read: Iterable[ReadWindow], total: int) -> None:
        """Adds windows that were read, so many at once as are encoded."""
        size, good = self._asked.batch_size, self._good(read)
        batches = iter(lambda: list(itertools.islice(good, size)), [])
        for batch in progress.track(batches, "indexing", total, "windows", each=size):
            self._add(batch)

    def _finished(self, removed: int, unchanged: int) -> Report:
        store = self._store
        store.compact()
        store.tidy()
        self._find_neighbours()
        failed_windows.write(self._failed, store.directory / FAILED_FILE)
        self._place.commit(store)
        self._place.send_failed()
        now = store.known()
        windows = sum(len(one.starts) for one in now.values())
        return Report(
            self._added, removed, unchanged, windows, len(now), self._failed, store.is_prepared
        )

    def _find_neighbours(self) -> None:
        """Keeps a vector of each window, where that is asked for."""
        snapshot = self._store.snapshot()
        if self._asked.neighbours and len(snapshot.rows):
            arrays = {name: x for name, x in snapshot.arrays.items() if name != TIMES}
            head = self._model.head
            near = Neighbours.of(self._store)
            near.bring_up_to_date(head, scan.windows_of(head, arrays), snapshot.rows)

    def _expected(self, video: video_folder.Video, known: video_folder.Known | None) -> int:
        """How many windows a video will give, by what its header says."""
        try:
            length = duration(video.path, self._reading.pictures_rate)
        except VideoError:
            return 1
        return len(self._reading.cut.windows(length or 0.0)) - len(known.starts if known else ())

    def _good(self, read: Iterable[ReadWindow]) -> Iterator[ReadWindow]:
        """The windows that have frames; notes the others, and those that lack some."""
        for one in read:
            if one.fault:
                start = one.window.start if one.window else None
                self._failed.append(FailedWindow(one.video.name, start, one.fault))
            if len(one.frames):
                yield one

    def _add(self, batch: Sequence[ReadWindow]) -> None:
        """Encodes windows and stores those whose features have a direction."""
        size, places = self._asked.batch_size, self._reading.num_frames
        frames = np.zeros((size, places, *batch[0].frames.shape[1:]), np.uint8)
        mask = np.zeros((size, places), np.int32)
        times = np.full((size, places), np.nan, np.float32)
        for number in range(size):
            # One shape is compiled: a batch that is not full is filled up with its last window.
            one = batch[min(number, len(batch) - 1)]
            count = len(one.frames)
            frames[number, :count], mask[number, :count] = one.frames, 1
            times[number, :count] = one.times
        video = self._model.encode_video(frames, mask)
        good = self._sound(video)[: len(batch)]
        for one in itertools.compress(batch, ~good):
            told = "its features have a length of 0, or one beyond float32"
            self._failed.append(FailedWindow(one.video.name, one.window.start, told))
        arrays = scan.to_arrays(self._model.head, video, self._asked.dtype) | {TIMES: times}
        kept = np.flatnonzero(good)
        if len(kept):
            records = [_record(batch[number]) for number in kept]
            self._store.add(records, {n: x[kept] for n, x in arrays.items()}, self._metadata)
            self._place.commit(self._store)
        self._added += len(kept)

    def _sound(self, video: Features) -> np.ndarray:
        """Which videos have a score with any sentence, bool [B]: vectors with a direction."""
        _, (vectors, mask) = self._model.head.directed(self._any_text, video)
        vectors = np.asarray(vectors, np.float32)
        squares = np.einsum("nVD,nVD->nV", vectors, vectors)
        real = np.ones(squares.shape, bool) if mask is None else np.asarray(mask) > 0
        usable = (squares > 0) & np.isfinite(squares)
        return (usable | ~real).all(axis=1) & real.any(axis=1)


def _record(one: ReadWindow) -> dict[str, Any]:
    """What is known of a window: the columns of `window_table.OWN`, but for its row."""
    return {
        "video": one.video.name,
        "start": one.window.start,
        "end": one.window.end,
        "windows": one.windows,
        "size": one.video.size,
        "modified": one.video.modified,
        "sha256": one.sha256,
    }
