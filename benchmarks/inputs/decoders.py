"""Decoders alone, one after the other on the same videos: `FOLDER decord|pyav`.

The same frames, one a second, RGB in the video's own size, by one thread. The videos are as high
as `HEIGHT`, so that nothing is resized.
"""

import pathlib
import sys
import zlib

from benchmarks.inputs import figures
from yardsticks.moving_clips import HEIGHT, WIDTH


def by_pyav(path: pathlib.Path):
    from glscl_jax.input_pipeline.decoding import video

    return video.read_frames(path, size=HEIGHT).images


def by_decord(path: pathlib.Path):
    import decord

    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    frames = reader.get_batch(range(0, len(reader), round(reader.get_avg_fps()))).asnumpy()
    left = (WIDTH - HEIGHT) // 2
    return frames[:, :, left : left + HEIGHT]


DECODERS = {"pyav": by_pyav, "decord": by_decord}


def decoded(folder: pathlib.Path, decode):
    """Yields (clips, frames) of each video."""
    for path in sorted({window.video for window in figures.windows(folder)}):
        yield 1, len(decode(path))


if __name__ == "__main__":
    folder, decode = pathlib.Path(sys.argv[1]), DECODERS[sys.argv[2]]
    first = figures.windows(folder)[0].video
    checksum = zlib.crc32(decode(first).tobytes())
    figures.measure(decoded(folder, decode), checksum).print_json()
