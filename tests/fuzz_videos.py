"""Damages small videos in many ways and reads them: nothing may escape but named failures.

    python -m tests.fuzz_videos --files=10000

Bytes flipped, runs of them overwritten, cut short, headers alone patched; in the usual containers.
The same seed gives the same files. Ends with status 1 where anything else than a `VideoError`
came, with the number of the file, which --only makes again.
"""

import collections
import pathlib
import tempfile
import time

import av
import numpy as np
from absl import flags

from glscl_jax.input_pipeline.decoding.video import VideoError, read_frames
from glscl_jax.runtime import program

FILES = flags.DEFINE_integer("files", 10_000, "Damaged files to read.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of what is damaged, and how.")
ONLY = flags.DEFINE_integer("only", None, "The number of one file to read alone.")

KINDS = {
    **{f"a.{ending}": "libx264" for ending in ("mp4", "mkv", "mov", "flv", "ts", "h264")},
    "b.mp4": "libx265",
    "a.webm": "libvpx",
    "a.avi": "mpeg4",
    "a.mpg": "mpeg2video",
    "a.wmv": "msmpeg4v3",
    "a.gif": "gif",
    "a.mxf": "mpeg2video",
    "a.ivf": "libvpx",
}
HEADER_BYTES = 2000


def main(_):
    numbers = range(FILES.value) if ONLY.value is None else [ONLY.value]
    came, slowest, escaped = collections.Counter(), (0.0, None), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        originals = {name: original(folder / name) for name in KINDS}
        for number in numbers:
            name, data = damaged(originals, number)
            path = folder / f"damaged-{name}"
            path.write_bytes(data)
            begun = time.monotonic()
            try:
                frames = read_frames(path, size=32, rate=2)
                came["frames, damage told" if frames.fault else "frames"] += 1
            except VideoError:
                came["named failures"] += 1
            except Exception as error:
                escaped.append(f"{number} ({name}): {error!r}")
            slowest = max(slowest, (time.monotonic() - begun, number))
    print(", ".join(f"{count:,} {what}" for what, count in sorted(came.items())))
    print(f"slowest: {slowest[0]:.1f} s, file {slowest[1]}; escaped: {len(escaped)}")
    print("\n".join(escaped))
    return 1 if escaped else 0


def original(path: pathlib.Path) -> bytes:
    """A video of 2 s."""
    codec = KINDS[path.name]
    scene = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    quiet = {"x265-params": "log-level=none:asm=0"} if codec == "libx265" else {}
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "10", **quiet})
        stream.height = stream.width = 96
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for number in range(50):
            picture = np.roll(scene, number, 1)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    return path.read_bytes()


def damaged(originals: dict[str, bytes], number: int) -> tuple[str, bytes]:
    """The name and the bytes of the file of a number."""
    random = np.random.default_rng([SEED.value, number])
    name = list(originals)[random.integers(len(originals))]
    data = bytearray(originals[name])
    way = random.integers(4)
    if way == 0:  # bits here and there
        for at in random.integers(len(data), size=random.integers(1, 60)):
            data[at] ^= 1 << random.integers(8)
    elif way == 1:  # a run of noise
        at, length = random.integers(len(data)), random.integers(1, 2000)
        data[at : at + length] = random.bytes(len(data[at : at + length]))
    elif way == 2:  # cut short
        del data[random.integers(len(data)) :]
    else:  # numbers of a header, at either end
        ends = [0, max(0, len(data) - HEADER_BYTES)]
        for _ in range(random.integers(1, 6)):
            at = ends[random.integers(2)] + random.integers(min(HEADER_BYTES, len(data)))
            width = int(2 ** random.integers(3))
            value = [b"\0" * width, b"\xff" * width, random.bytes(width)][random.integers(3)]
            data[at : at + width] = value
    return name, bytes(data)


if __name__ == "__main__":
    program.run(main)
