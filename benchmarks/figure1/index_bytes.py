"""What an index keeps of a video, under each head."""

import jax
import numpy as np

from benchmarks.figure1.settings import Setting, shapes_of
from glscl_jax.search import scan

VIDEOS = 2  # Of which arrays are made.


def index_bytes(setting: Setting, name: str, dtype: str) -> int:
    """Bytes a video, all frames real: features, what is prepared, an outline, times of frames.

    The rest is the same for all heads: some 200 bytes of a table, and where it was asked for a
    vector for neighbours.

    Args:
      setting, name: see there.
      dtype: in which features are kept, "float32" or "bfloat16"; the rest is float32.
    """
    head, rng = setting.head(name), np.random.default_rng(0)
    _, video, _ = shapes_of(head, setting.sizes)

    def made(x):
        shape = (VIDEOS, *x.shape[1:])
        if np.issubdtype(x.dtype, np.integer):
            return np.ones(shape, x.dtype)
        return rng.normal(size=shape).astype(x.dtype)

    arrays = scan.to_arrays(head, jax.tree.map(made, video), dtype)
    times = setting.sizes.frames * np.dtype(np.float32).itemsize
    return times + sum(array.nbytes for array in arrays.values()) // VIDEOS
