"""Makes an index of a folder of videos, or of a prepared data set, or brings one up to date."""

import dataclasses
import fnmatch
import functools
import itertools
import os
import pathlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from glscl_jax import paths, ranges
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.decoding.video import VideoError, duration
from glscl_jax.input_pipeline.preparing.failures import FAILED_FILE
from glscl_jax.models.glscl import config_of
from glscl_jax.models.heads.features import Features
from glscl_jax.ranges import OneOf, Optional, Real, Whole
from glscl_jax.retriever import Retriever, load
from glscl_jax.runtime import lock, progress
from glscl_jax.search import engine, failed_windows, metadata, provenance, scan, video_folder
from glscl_jax.search.failed_windows import FailedWindow
from glscl_jax.search.neighbours import Neighbours
from glscl_jax.search.store import INDEX, Store, unwritten
from glscl_jax.search.window_reader import Reading, ReadWindow, read_all
from glscl_jax.search.windows import Cut

if TYPE_CHECKING:
    from glscl_jax.search.prepared_split import PreparedSplit

_LOCK = ".lock"
TIMES = "times"
DTYPES = ("float32", "bfloat16", "float16")
_WINDOW, _STRIDE = 10.0, 5.0
# What an index remembers of how it was made, beside what its features depend on.
_REMEMBERED = (
    "metadata",
    "only",
    "follow_links",
    "neighbours",
    "qdrant",
    "data_dir",
    "split",
)
# What says nothing of clips that are prepared.
_OF_VIDEOS = ("metadata", "window", "stride", "frame_rate", "pictures_rate", "follow_links")
_SPLIT = "test"
_RANGES = {
    "batch_size": Whole(1),
    "workers": Optional(Whole(1)),
    "dtype": Optional(OneOf(DTYPES)),
    "frame_rate": Optional(Real(above=0)),
    "num_frames": Optional(Whole(1)),
    "pictures_rate": Optional(Real(above=0)),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to index and how; each field is a flag of the program.

    None stands for what the index was made with before; of a new index, for what is said here.

    Attributes:
      index: the directory of the index.
      videos: a folder.
      data_dir: a prepared data set in its place, whose clips are the windows.
      split: of that; "test".
      checkpoint: a directory that `train` or `convert` wrote.
      step: of a work directory; the best by validation R@1.
      metadata: a file of what is known of the videos; `metadata.csv` in the folder, if there is
        one.
      window, stride: see `windows.Cut`; 10 seconds, and half of the window.
      num_frames, frame_rate: V, and frames a second of which they are picked; those of the run's
        training.
      pictures_rate: pictures a second of a folder of them.
      dtype: in which features are kept; float32.
      batch_size: windows that are encoded and stored at once.
      workers: threads that decode; None for one a core.
      only: a pattern of names (`fnmatch`), e.g. "2024/*.mp4", or of clips' ids; others are as if
        they were not there; all.
      neighbours: whether to keep a vector a window by which `--candidates` finds them; no.
      qdrant: the address of a Qdrant server that keeps them; "" for LanceDB in the index.
      follow_links: whether links are followed that lead out of the folder; no.
    """

    index: str | os.PathLike
    videos: str | os.PathLike | None = None
    data_dir: str | os.PathLike | None = None
    split: str | None = None
    checkpoint: str | os.PathLike | None = None
    step: int | None = None
    metadata: str | os.PathLike | None = None
    window: float | None = None
    stride: float | None = None
    num_frames: int | None = None
    frame_rate: float | None = None
    pictures_rate: float | None = None
    dtype: str | None = None
    batch_size: int = 16
    workers: int | None = None
    only: str | None = None
    neighbours: bool | None = None
    qdrant: str | None = None
    follow_links: bool | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What an indexing did.

    Attributes:
      added, removed: windows.
      unchanged: videos that were there as they are.
      windows, videos: that there are now.
      failed: what could not be read.
    """

    added: int
    removed: int
    unchanged: int
    windows: int
    videos: int
    failed: list[FailedWindow]


def index_videos(index: str | os.PathLike, **options) -> Report:
    """Indexes a folder or a split: adds what is new or changed, takes out what is gone.

    Args:
      index: the directory; made if it is not there.
      options: fields of `Options`.

    Raises:
      UserError: naming what is missing, damaged, or does not fit the index.
    """
    asked = Options(index, **options)
    try:
        ranges.check(vars(asked), _RANGES)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    engine.module("lancedb")
    directory = paths.local(asked.index, "--index").absolute()
    there = (directory / INDEX).is_file()
    about = Store.open(directory).about if there else {}
    _check_source(asked, about, directory)
    asked = _remembering(asked, about)
    if asked.qdrant and asked.neighbours:
        engine.module("qdrant_client", engine.QDRANT)
    elif options.get("qdrant"):
        raise UserError("--qdrant keeps the neighbours of windows: add --neighbours")
    cut, prepared, found = Cut(asked.window, asked.stride), _prepared(asked), []
    if prepared:
        cut = Cut(0.0)
        asked = dataclasses.replace(asked, frame_rate=prepared.data.settings.frame_rate)
        asked = dataclasses.replace(asked, data_dir=prepared.data_dir, split=prepared.split)
    else:
        found = video_folder.videos_of(_videos(asked, about), bool(asked.follow_links), asked.only)
    taken = "another process is indexing there"
    with lock.claimed(directory, _LOCK, f"--index {directory}", taken):
        store, model, reading = _opened(asked, directory, cut, prepared)
        try:
            run = _Run(store, model, reading, asked)
            return run.run_prepared(prepared) if prepared else run.run(found)
        except OSError as error:
            raise unwritten(directory, error) from error


def _check_source(asked: Options, about: dict[str, Any], directory: pathlib.Path) -> None:
    """Raises a `UserError` for videos and prepared clips in one, or flags of the other."""
    if asked.videos is not None and asked.data_dir is not None:
        raise UserError("give one of --videos and --data_dir")
    kind = "data_dir" if about.get("data_dir") else "videos"
    other = {"data_dir": "videos", "videos": "data_dir"}[kind]
    if about and getattr(asked, other) is not None:
        raise UserError(
            f"--index {directory} was made of --{kind} {about[kind]}: index --{other} into another"
            " directory"
        )
    if asked.data_dir is None and not about.get("data_dir"):
        if asked.split is not None:
            raise UserError("--split is of a prepared data set: name it by --data_dir")
        return
    if given := [name for name in _OF_VIDEOS if getattr(asked, name) is not None]:
        raise UserError(
            f"--{given[0]} says nothing of clips that are prepared, which are windows as they are:"
            " leave it out"
        )


def _prepared(asked: Options) -> "PreparedSplit | None":
    if not asked.data_dir:
        return None
    # Here, as it takes TensorFlow.
    from glscl_jax.search.prepared_split import PreparedSplit

    return PreparedSplit.open(asked.data_dir, asked.split or _SPLIT)


def _remembering(asked: Options, about: dict[str, Any]) -> Options:
    """What is asked, with what is left open as the index has it, or by default."""
    reading = about.get("made_of", {}).get("reading", {})
    names = ("num_frames", "rate", "pictures_rate", "dtype")
    before = {name: reading.get(name) for name in names} | reading.get("cut", {})
    before |= {name: about.get(name) for name in _REMEMBERED}
    before["frame_rate"] = before.pop("rate")
    if asked.window not in (None, before.get("window")):
        # Another window gets another stride.
        before["stride"] = asked.window / 2 or _STRIDE
    usual = {"window": _WINDOW, "stride": _STRIDE, "dtype": DTYPES[0]}
    known = usual | {name: value for name, value in before.items() if value is not None}
    left = {name: value for name, value in known.items() if getattr(asked, name) is None}
    return dataclasses.replace(asked, **left)


def _videos(asked: Options, about: dict[str, Any]) -> pathlib.Path:
    if asked.videos is None and "videos" not in about:
        raise UserError("--videos is missing: name the folder to index")
    return paths.local(asked.videos or about["videos"], "--videos").absolute()


def _opened(
    asked: Options, directory: pathlib.Path, cut: Cut, prepared: "PreparedSplit | None"
) -> tuple[Store, Retriever, Reading]:
    """The index to write to, the model and how videos are read; all must go together."""
    store = Store.open(directory) if (directory / INDEX).is_file() else None
    checkpoint = asked.checkpoint or (store and store.about["checkpoint"])
    if not checkpoint:
        raise UserError("--checkpoint is missing: name a directory that train or convert wrote")
    if store and asked.checkpoint is None:
        where = f"--index {directory}"
        model = provenance.load_for(
            store.about["made_of"], checkpoint, store.about.get("step"), where
        )
    else:
        model = load(checkpoint, step=asked.step)
    if model.tokenizer is None:
        raise UserError(
            f"--checkpoint {os.fspath(checkpoint)} has no tokenizer, so no sentence could be"
            " asked: convert its source again with --tokenizer"
        )
    most = config_of(model.config, model.params).most_frames
    if most is not None and (asked.num_frames or 0) > most:
        raise UserError(f"--num_frames {asked.num_frames}: the model takes at most {most}")
    images = model.config.clip.preprocessing
    reading = Reading(
        cut,
        images.size,
        asked.frame_rate or model.frame_rate,
        asked.num_frames or model.num_frames,
        images.resize,
        images.interpolation,
        asked.pictures_rate,
    )
    told = {"dtype": asked.dtype, **dataclasses.asdict(reading)}
    made = provenance.of_model(model) | {"reading": told}
    if prepared:
        prepared.check(images)
        made |= prepared.made_of
    if not paths.is_address(checkpoint):
        checkpoint = str(paths.local(checkpoint, "--checkpoint").absolute())
    lies = {"checkpoint": checkpoint, "step": model.step}
    if asked.metadata is not None:
        lies["metadata"] = str(paths.local(asked.metadata, "--metadata").absolute())
    lies |= {name: getattr(asked, name) for name in _REMEMBERED if name not in lies}
    if asked.qdrant:
        # A server may have those of many indexes.
        known = store.about.get("collection") if store else None
        lies["collection"] = known or f"glscl_{uuid.uuid4().hex}"
    if store:
        store.check_provenance(made)
    else:
        store = Store.create(directory, {"made_of": made, "videos": "", **lies})
    store.sweep()
    videos = prepared.data_dir if prepared else str(_videos(asked, store.about))
    store.change(videos=videos, **lies)
    return store, model, reading


class _Run:
    """One indexing, with all that it needs."""

    def __init__(self, store: Store, model: Retriever, reading: Reading, asked: Options):
        self._store, self._model, self._reading, self._asked = store, model, reading, asked
        self._failed: list[FailedWindow] = []
        self._added = 0

    @functools.cached_property
    def _any_text(self) -> Features:
        """Features of some sentence, where those of videos alone are asked for."""
        return self._model.encode_captions("a")

    def run(self, found: list[video_folder.Video]) -> Report:
        """Brings the index up to date with the videos that were found."""
        store = self._store
        self._reach_neighbours()
        self._metadata = self._read_metadata(found)
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
            told = f"{todo.unchanged:,} videos are indexed already"
            print(f"{told}, {len(todo.stale):,} changed or went", flush=True)
        total = sum(self._expected(video, known) for video, known in wanted)
        if wanted:
            self._add_all(read_all(wanted, self._reading, self._workers), total)
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
        # Last, as it is known by now whether the pattern matches anything.
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
        now = store.known()
        windows = sum(len(one.starts) for one in now.values())
        return Report(self._added, removed, unchanged, windows, len(now), self._failed)

    def _find_neighbours(self) -> None:
        """Keeps a vector of each window, where that is asked for."""
        snapshot = self._store.snapshot()
        if self._asked.neighbours and len(snapshot.rows):
            arrays = {name: x for name, x in snapshot.arrays.items() if name != TIMES}
            head = self._model.head
            near = Neighbours.of(self._store)
            near.bring_up_to_date(head, scan.windows_of(head, arrays), snapshot.rows)

    def _read_metadata(self, found: Sequence[video_folder.Video]) -> metadata.Metadata:
        """What is known of the videos; says which rows are of none of them."""
        folder = pathlib.Path(self._store.about["videos"])
        path = folder / metadata.NAME
        if self._asked.metadata is not None:
            path = paths.local(self._asked.metadata, "--metadata")
        elif not path.is_file():
            return metadata.Metadata()
        read = metadata.read(path)
        names = {video.name for video in found}
        if lost := sorted(read.of.keys() - names):
            print(
                f"{path}: {len(lost):,} of {len(read.of):,} rows are of no video there, the first"
                f" {lost[0]!r}",
                flush=True,
            )
        return read

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
