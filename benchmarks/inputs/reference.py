"""The reference's way: decord, Pillow and torchvision's transforms in processes: `FOLDER WORKERS`.

Each clip is decoded anew, every time it is read. What torchvision and torch's loader do is written
out with Pillow and NumPy: Resize (bicubic), CenterCrop, ToTensor, Normalize; then clips are put
together to a batch, from memory that the processes share. One thread decodes in each process: on
two cores that is faster than decord's own threads, so the reference is given it.
"""

import collections
import multiprocessing
import pathlib
import sys

import numpy as np
from PIL import Image

from benchmarks.inputs import figures
from benchmarks.inputs.figures import BATCH, NUM_FRAMES, SIZE

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)[:, None, None]
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)[:, None, None]
SHAPE = (NUM_FRAMES, 3, SIZE, SIZE)


def decode(window: figures.Window) -> np.ndarray:
    """The reference's frames of a clip, at most 12: uint8 [V,H,W,3]."""
    import decord

    video = decord.VideoReader(str(window.video), ctx=decord.cpu(0), num_threads=1)
    fps = video.get_avg_fps()
    positions = range(int(window.start * fps), len(video), round(fps))
    if len(positions) > NUM_FRAMES:
        chosen = np.linspace(0, len(positions) - 1, NUM_FRAMES, dtype=int)
        positions = [positions[place] for place in chosen]
    return video.get_batch(list(positions)).asnumpy()


def transform(frame: np.ndarray) -> np.ndarray:
    """Resize, CenterCrop, ToTensor, Normalize: float32 [3,224,224]."""
    picture = Image.fromarray(frame)
    width, height = picture.size
    short = min(width, height)
    size = int(SIZE * width / short), int(SIZE * height / short)
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (round((side - SIZE) / 2) for side in size)
    picture = picture.crop((left, top, left + SIZE, top + SIZE))
    tensor = np.asarray(picture).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return (tensor - MEAN) / STD


def places(memory) -> np.ndarray:
    """Shared memory as the clips of two batches: one is filled while the other is taken."""
    return np.frombuffer(memory, np.float32).reshape(2 * BATCH, *SHAPE)


def begin(memory) -> None:
    """In each process, once."""
    global SHARED
    SHARED = places(memory)


def load(task: tuple[int, figures.Window]) -> int:
    """Reads a clip into its place; returns its number of frames."""
    place, window = task
    frames = decode(window)
    SHARED[place] = 0
    for number, frame in enumerate(frames):
        SHARED[place, number] = transform(frame)
    return len(frames)


def batches(folder: pathlib.Path, workers: int):
    """Yields (clips, real frames) of each batch."""
    clips = figures.windows(folder)
    memory = multiprocessing.RawArray("b", 2 * BATCH * int(np.prod(SHAPE)) * 4)
    shared = places(memory)
    tasks = [
        [(first % (2 * BATCH) + place, clip) for place, clip in enumerate(clips[first:][:BATCH])]
        for first in range(0, len(clips), BATCH)
    ]
    with multiprocessing.Pool(workers, begin, [memory]) as pool:
        ahead = collections.deque([pool.map_async(load, tasks[0], chunksize=1)])
        for number, task in enumerate(tasks):
            if number + 1 < len(tasks):
                ahead.append(pool.map_async(load, tasks[number + 1], chunksize=1))
            counts = ahead.popleft().get()
            batch = shared[[place for place, _ in task]]  # a copy, as the loader's collating is
            yield len(batch), sum(counts)


if __name__ == "__main__":
    figures.measure(batches(pathlib.Path(sys.argv[1]), int(sys.argv[2]))).print_json()
