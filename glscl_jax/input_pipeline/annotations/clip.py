"""The one record that every reader gives."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Clip:
    """A piece of video and what is said of it.

    Attributes:
      clip_id: unique in the data set.
      video: the file; it need not exist yet.
      captions: one or more, in the order of the annotations.
      start: seconds from the video's first frame; None means its beginning.
      end: seconds from the video's first frame; None means its end.
      split: train, val, test or any other name.
    """

    clip_id: str
    video: pathlib.Path
    captions: tuple[str, ...]
    start: float | None
    end: float | None
    split: str
