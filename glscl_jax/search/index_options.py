"""What an indexing is asked for, and what an index remembers of it."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from glscl_jax import ranges
from glscl_jax.errors import UserError
from glscl_jax.ranges import OneOf, Optional, Real, Whole

DTYPES = ("float32", "bfloat16", "float16")
_WINDOW, _STRIDE = 10.0, 5.0
# What an index remembers of how it was made, beside what its features depend on.
REMEMBERED = (
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

    def check(self) -> None:
        """Raises a `UserError` for a setting that is out of its range."""
        try:
            ranges.check(vars(self), _RANGES)
        except ValueError as error:
            raise UserError(f"--{error}") from error

    def check_source(self, about: Mapping[str, Any], directory: pathlib.Path) -> None:
        """Raises a `UserError` for videos and prepared clips in one, or flags of the other."""
        if self.videos is not None and self.data_dir is not None:
            raise UserError("give one of --videos and --data_dir")
        kind = "data_dir" if about.get("data_dir") else "videos"
        other = {"data_dir": "videos", "videos": "data_dir"}[kind]
        if about and getattr(self, other) is not None:
            raise UserError(
                f"--index {directory} was made of --{kind} {about[kind]}: index --{other} into"
                " another directory"
            )
        if self.data_dir is None and not about.get("data_dir"):
            if self.split is not None:
                raise UserError("--split is of a prepared data set: name it by --data_dir")
            return
        if given := [name for name in _OF_VIDEOS if getattr(self, name) is not None]:
            raise UserError(
                f"--{given[0]} says nothing of clips that are prepared, which are windows as they"
                " are: leave it out"
            )

    def resumed(self, about: Mapping[str, Any]) -> "Options":
        """These, with what is left open as the index has it, or by default."""
        reading = about.get("made_of", {}).get("reading", {})
        names = ("num_frames", "rate", "pictures_rate", "dtype")
        before = {name: reading.get(name) for name in names} | reading.get("cut", {})
        before |= {name: about.get(name) for name in REMEMBERED}
        before["frame_rate"] = before.pop("rate")
        if self.window not in (None, before.get("window")):
            # Another window gets another stride.
            before["stride"] = self.window / 2 or _STRIDE
        usual = {"window": _WINDOW, "stride": _STRIDE, "dtype": DTYPES[0]}
        known = usual | {name: value for name, value in before.items() if value is not None}
        left = {name: value for name, value in known.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **left)
