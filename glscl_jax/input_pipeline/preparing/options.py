"""What is to be prepared, and how: the flags of `prepare`, and the arguments of its functions."""

import dataclasses
import os
import pathlib

from glscl_jax import paths, ranges
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import READERS
from glscl_jax.input_pipeline.preparing import beam
from glscl_jax.models.encoders.images import INTERPOLATIONS, RESIZES
from glscl_jax.ranges import OneOf, Real, Whole

_RANGES = {
    "dataset": OneOf(tuple(READERS)),
    "frame_rate": Real(least=0.001),
    "jpeg_quality": Whole(1, 100),
    "max_failed_share": Real(0, most=1),
}
# Of those that may be left to the program.
_OPTIONAL = {
    "validation_size": Whole(),
    "image_size": Whole(1),
    "resize": OneOf(RESIZES),
    "interpolation": OneOf(INTERPOLATIONS),
    "pictures_rate": Real(least=0.001),
    "workers": Whole(1),
    "beam_runner": OneOf(beam.RUNNERS),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to prepare and how; each field is a flag of the program.

    Attributes:
      source: the folder of annotations and videos.
      dataset: whose annotation files it holds, a key of `annotations.READERS`.
      videos: the folder of the videos, where that is another.
      names: a table of which file each id is, where names do not say so; see `file_names`.
      validation_size: training videos to hold out as split val; None for the data set's usual.
      allow_partial: whether to go on where something is missing or bad.
      follow_links: whether to follow links that lead out of the folders.
      frame_rate: frames stored a second of video.
      for_model: a model directory, whose frames' size and making are taken; None for CLIP's.
      image_size: height and width of the frames, in pixels; None for the model's, 224.
      resize: how they become squares: "crop": the shorter side resized and the centre cropped;
        "squash": both sides resized; None for the model's, "crop".
      interpolation: by which of Pillow's filters, "bicubic" or "bilinear"; None for the model's,
        "bicubic".
      stored_pixels: whether pixels that are not square are left as they are stored.
      pictures_rate: pictures a second of videos that are folders of pictures; needed for those.
      jpeg_quality: of the frames, 1 to 100.
      max_failed_share: the share of the clips, 0 to 1, that may fail.
      workers: threads that decode, processes on Beam; None for as many as there are cores.
      beam_runner: an engine of Apache Beam, a key of `beam.RUNNERS`; None for threads.
      beam_options: its options, as "--flag=value --other=value".
      overwrite: whether to replace a data set that is there.

    Raises:
      UserError: a value that cannot be meant, named as the flag is.
    """

    source: str | os.PathLike
    dataset: str = "folder"
    videos: str | os.PathLike | None = None
    names: str | os.PathLike | None = None
    validation_size: int | None = None
    allow_partial: bool = False
    follow_links: bool = False
    frame_rate: float = 1.0
    for_model: str | os.PathLike | None = None
    image_size: int | None = None
    resize: str | None = None
    interpolation: str | None = None
    stored_pixels: bool = False
    pictures_rate: float | None = None
    jpeg_quality: int = 95
    max_failed_share: float = 0.01
    workers: int | None = None
    beam_runner: str | None = None
    beam_options: str = ""
    overwrite: bool = False

    def __post_init__(self):
        try:
            ranges.check(vars(self), _RANGES)
            given = {name: getattr(self, name) for name in _OPTIONAL}
            given = {name: value for name, value in given.items() if value is not None}
            ranges.check(given, _OPTIONAL)
        except ValueError as error:
            raise UserError(f"--{error}") from error

    @property
    def threads(self) -> int:
        """`workers`, or as many as there are cores."""
        return self.workers or os.cpu_count() or 1

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the annotations."""
        return paths.local(self.source, "--source")

    @property
    def video_folder(self) -> pathlib.Path:
        """The folder of the videos.

        Raises:
          UserError: it, or that of the annotations, is not there.
        """
        found = paths.local(self.videos, "--videos") if self.videos else self.folder
        for folder in (self.folder, found):
            if not folder.is_dir():
                what = "a file, and no folder" if folder.is_file() else "no such folder"
                raise UserError(f"{folder}: {what}")
        return found
