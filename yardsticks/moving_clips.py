"""Clips for the input benchmark: a camera that wanders over a textured scene, as MP4 files."""

import pathlib

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT, RATE = 320, 240, 30


def write_clip(path: pathlib.Path, seconds: float, seed: int, **encoder: str) -> None:
    """Encodes H.264 at x264's defaults, B-frames and long groups of pictures as downloads have.

    Args:
      path: the .mp4 to write.
      seconds: its length.
      seed: of the scene and of the way over it.
      encoder: options of x264 beside its defaults.
    """
    rng = np.random.default_rng(seed)
    scene = _scene(rng)
    way = rng.uniform(0, 2 * np.pi, 2)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=encoder)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(round(seconds * RATE)):
            at = np.array([number / 50, number / 70]) + way
            x, y = (np.cos(at) + 1) / 2 * (WIDTH, HEIGHT)
            view = scene[int(y) : int(y) + HEIGHT, int(x) : int(x) + WIDTH]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(view), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _scene(rng) -> np.ndarray:
    """uint8 [2H,2W,3]: coloured patches under fine grain."""
    size = 2 * WIDTH, 2 * HEIGHT
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    patches = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
    grain = rng.integers(-20, 21, (2 * HEIGHT, 2 * WIDTH, 1))
    return np.clip(patches + grain, 0, 255).astype(np.uint8)
