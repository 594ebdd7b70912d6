"""A split of a prepared data set in the place of a folder: its clips are the windows.

Their frames are there, as they were prepared, and no file is decoded. A data set does not change:
an index is of one, and of that what is not indexed yet is read.
"""

import collections
import dataclasses
import fnmatch
import itertools
import pathlib
from collections.abc import Iterator
from concurrent import futures

import numpy as np
import pyarrow as pa

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.pipeline import check_settings
from glscl_jax.input_pipeline.prepared_clips import PreparedClip, clips
from glscl_jax.input_pipeline.prepared_data import PreparedData, open_data
from glscl_jax.input_pipeline.video_files import pick
from glscl_jax.models.encoders.images import Preprocessing
from glscl_jax.search.metadata import Metadata
from glscl_jax.search.video_folder import Video
from glscl_jax.search.window_reader import ReadWindow
from glscl_jax.search.windows import Window

# The table's columns beside its own: the clip's video, and its captions, one behind the other.
FIELDS = (pa.field("file", pa.string()), pa.field("captions", pa.string()))
_BETWEEN = " | "


@dataclasses.dataclass(frozen=True)
class PreparedSplit:
    """What is indexed.

    Attributes:
      data_dir: the folder, absolute.
      data: what is in it.
      split: the name.
    """

    data_dir: str
    data: PreparedData
    split: str

    @classmethod
    def open(cls, data_dir, split: str) -> "PreparedSplit":
        """Opens it.

        Raises:
          UserError: there is none, or no such split.
        """
        data = open_data(data_dir)
        if split not in data.splits:
            raise UserError(f"--split {split}: {data_dir} has {', '.join(sorted(data.splits))}")
        if not paths.is_address(data_dir):
            data_dir = paths.local(data_dir, "--data_dir").absolute()
        return cls(str(data_dir), data, split)

    def __len__(self) -> int:
        """How many clips."""
        return self.data.splits[self.split]

    @property
    def made_of(self) -> dict:
        """What tells it from another, wherever it lies."""
        return {"data": self.data.identity, "split": self.split}

    def check(self, images: Preprocessing) -> None:
        """Raises a `UserError` where frames are not as a model's images are made."""
        check_settings(self.data, frame_rate=self.data.settings.frame_rate, images=images)

    def check_only(self, only: str | None) -> None:
        """Raises a `UserError` where no clip's id is of a pattern; reads until one is."""
        if only is None:
            return
        if not any(
            fnmatch.fnmatchcase(clip.clip_id, only) for clip in clips(self.data, self.split)
        ):
            raise UserError(f"--only {only!r} matches none of {len(self):,} clips of {self.split}")

    def windows(
        self,
        there: frozenset[str],
        only: str | None,
        num_frames: int,
        workers: int,
        metadata: Metadata,
    ) -> Iterator[ReadWindow]:
        """Each clip as a window, whole.

        Args:
          there: ids that are passed over.
          only: a pattern of ids; all.
          num_frames: V, of more stored frames.
          workers: threads that decode.
          metadata: of `FIELDS`, to which each clip's are added before it is yielded.

        Raises:
          UserError: a record cannot be read.
        """

        def wanted() -> Iterator[PreparedClip]:
            for clip in clips(self.data, self.split):
                matches = only is None or fnmatch.fnmatchcase(clip.clip_id, only)
                if matches and clip.clip_id not in there:
                    yield clip

        rate = self.data.settings.frame_rate
        with futures.ThreadPoolExecutor(workers) as pool:
            ahead, source = collections.deque(), wanted()
            while True:
                for clip in itertools.islice(source, 2 * workers - len(ahead)):
                    ahead.append((clip, pool.submit(_read, clip, num_frames, rate)))
                if not ahead:
                    break
                clip, read = ahead.popleft()
                told = {"file": clip.video, "captions": _BETWEEN.join(clip.captions)}
                metadata.of[clip.clip_id] = told
                yield read.result()


def _read(clip: PreparedClip, num_frames: int, rate: float) -> ReadWindow:
    video = Video(clip.clip_id, pathlib.Path(clip.video), clip.size, 0)
    taken = pick(len(clip.jpegs), num_frames)
    fault, frames, times = None, np.zeros((0, 0, 0, 3), np.uint8), clip.times[taken]
    try:
        frames = clip.frames(taken)
    except (OSError, ValueError) as error:
        fault = f"a frame is damaged ({error})"
    end = float(clip.times[-1]) + 1 / rate if len(clip.times) else 0.0
    return ReadWindow(video, clip.sha256(), Window(0.0, end), 1, frames, times, fault)
