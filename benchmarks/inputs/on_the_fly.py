"""This project's decoder at every read instead of once: `FOLDER WORKERS`, threads."""

import collections
import pathlib
import sys
from concurrent import futures

import numpy as np

from benchmarks.inputs import figures
from benchmarks.inputs.figures import BATCH, NUM_FRAMES, SIZE
from glscl_jax.input_pipeline.decoding import video


def load(window: figures.Window) -> np.ndarray:
    """At most 12 frames of a clip, uint8 [V,224,224,3]."""
    frames = video.read_frames(window.video, size=SIZE, start=window.start).images
    if len(frames) > NUM_FRAMES:
        frames = frames[np.linspace(0, len(frames) - 1, NUM_FRAMES, dtype=int)]
    return frames


def batches(folder: pathlib.Path, workers: int):
    """Yields (clips, real frames) of each batch."""
    clips = figures.windows(folder)
    with futures.ThreadPoolExecutor(workers) as pool:
        # A batch ahead, as the other ways have.
        waiting = collections.deque(pool.submit(load, clip) for clip in clips[: 2 * BATCH])
        for first in range(0, len(clips), BATCH):
            batch = np.zeros((BATCH, NUM_FRAMES, SIZE, SIZE, 3), np.uint8)
            count = 0
            for place in range(BATCH):
                frames = waiting.popleft().result()
                batch[place, : len(frames)] = frames
                count += len(frames)
            waiting.extend(pool.submit(load, clip) for clip in clips[first + 2 * BATCH :][:BATCH])
            yield len(batch), count


if __name__ == "__main__":
    figures.measure(batches(pathlib.Path(sys.argv[1]), int(sys.argv[2]))).print_json()
