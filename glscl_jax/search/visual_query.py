"""A video file or a picture as a query: its frames, encoded as those of a window are."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations.source import is_picture
from glscl_jax.input_pipeline.decoding import geometry
from glscl_jax.input_pipeline.decoding.picture_folder import read_picture
from glscl_jax.input_pipeline.decoding.video import VideoError, read_frames
from glscl_jax.input_pipeline.video_files import pick
from glscl_jax.models.heads.features import Features
from glscl_jax.retriever import Retriever


def read(model: Retriever, file: str | os.PathLike, reading: Mapping) -> Features:
    """Features of one video, arrays [1,...].

    Args:
      model: what encodes it.
      file: a video file, a folder of numbered pictures, or a picture, which is a video of a frame.
      reading: `Reading` of the index, as JSON.

    Raises:
      UserError: it cannot be read.
    """
    path: pathlib.Path = paths.local(file, "--like")
    how = {name: reading[name] for name in ("size", "resize", "interpolation")}
    try:
        if is_picture(path.name) and path.is_file():
            images = geometry.fit(read_picture(path), **how)[None]
        else:
            more = {"rate": reading["rate"], "pictures_rate": reading["pictures_rate"]}
            images = read_frames(path, **how, **more).images
    except VideoError as error:
        raise UserError(f"{path}: {error}") from error
    images = images[pick(len(images), reading["num_frames"])]
    frames = np.zeros((1, reading["num_frames"], *images.shape[1:]), np.uint8)
    mask = np.zeros((1, reading["num_frames"]), np.int32)
    frames[0, : len(images)], mask[0, : len(images)] = images, 1
    return model.encode_video(frames, mask)
