"""Video files -> what the video encoder takes, without a prepared data set and without TensorFlow.

A video gives the frames that `prepare` would store of it and that `pipeline.eval_batches` would
then pick, but that they were never a JPEG.
"""

import concurrent.futures
import functools
import os
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.decoding.video import VideoError, read_frames


def pick(count: int, num_frames: int) -> np.ndarray:
    """Which of `count` frames are taken, int64 [V or fewer]; as `pipeline.pick_frames`.

    All, or if they are more than V = `num_frames`, V evenly spaced ones.
    """
    if count <= num_frames:
        return np.arange(count)
    return np.linspace(0, count - 1, num_frames).astype(int)


def read_videos(
    files: Sequence[str | os.PathLike],
    *,
    size: int,
    rate: float,
    num_frames: int,
    pictures_rate: float | None = None,
    **how: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes B videos, side by side on the cores that there are.

    Of a file that is damaged the good frames are taken; a warning names it and what is lost.

    Args:
      files: video files, or folders of numbered pictures.
      size: S, height and width of a frame, in pixels.
      rate: frames a second, of which `num_frames` are picked.
      num_frames: V.
      pictures_rate: pictures a second, where one is a folder.
      how: `resize` and `interpolation`, as `read_frames` takes them.

    Returns:
      Frames uint8 [B,V,S,S,3] and their mask int32 [B,V], 1 on real frames; the others are zero.

    Raises:
      UserError: naming the first file of which no frame can be had.
    """
    frames = np.zeros((len(files), num_frames, size, size, 3), np.uint8)
    mask = np.zeros((len(files), num_frames), np.int32)
    read = functools.partial(_read, size=size, rate=rate, pictures_rate=pictures_rate, **how)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for place, images in enumerate(pool.map(lambda file: read(file, num_frames), files)):
            frames[place, : len(images)] = images
            mask[place, : len(images)] = 1
    return frames, mask


def _read(file: str | os.PathLike, num_frames: int, **how) -> np.ndarray:
    """The frames that are taken of one video, uint8 [V or fewer,S,S,3]."""
    path: pathlib.Path = paths.local(file, "video")
    try:
        found = read_frames(path, **how)
    except VideoError as error:
        raise UserError(f"{path}: {error}") from error
    if found.fault:
        warnings.warn(f"{path}: {found.fault}", stacklevel=2)
    return found.images[pick(len(found.images), num_frames)]
