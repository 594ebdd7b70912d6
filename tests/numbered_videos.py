"""Videos that carry each frame's number in its pixels, and reading it back."""

import fractions

import av
import numpy as np

SIZE = 48
BITS = 12
# The slow encoders at their fastest, and quiet; x265 without assembly, which writes beyond its
# memory on some processors (PyAV 18.1 on an AMD EPYC) and ends the process.
QUICK = {
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3:asm=0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12"},
}


def numbered(number, height=SIZE, width=SIZE):
    """A picture with `number` as 12 black or white blocks in 3 rows, on a coloured ground.

    The blocks grow with the picture, up to twice their size.
    """
    picture = np.full((height, width, 3), (90, 60, 140), np.uint8)
    scale = min(height, width) // SIZE
    for bit in range(BITS):
        row, column = divmod(bit, 4)
        shade = 255 if number >> bit & 1 else 0
        top, left = 16 * scale * row, 12 * scale * column
        picture[top : top + 16 * scale, left : left + 12 * scale] = shade
    return picture


def numbers(images):
    """Reads `numbered` back from images [V, 48, 48, 3]."""
    blocks = images[:, 8::16, 6::12].mean(-1) > 128
    return (blocks.reshape(len(images), BITS) @ (1 << np.arange(BITS))).tolist()


def write(path, count=90, rate=30, *, codec="libx264", gop=250, bframes=0, pts=None, **settings):
    """Encodes `count` numbered frames; `pts` are their times in ms for a variable frame rate."""
    # No key frames but the asked ones.
    options = {"g": str(gop), "bf": str(bframes), "sc_threshold": "0", **QUICK.get(codec, {})}
    height, width = settings.get("shape", (SIZE, SIZE))
    with av.open(path, "w", options=settings.get("options", {})) as container:
        container.metadata.update(settings.get("metadata", {}))
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.thread_count = 1
        stream.codec_context.max_b_frames = bframes
        if pts is not None:
            stream.codec_context.time_base = fractions.Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number, height, width), format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[number], fractions.Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def every_frame(path):
    """The slow oracle: all frames in the order they are shown, uint8 [N, H, W, 3]."""
    with av.open(path) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def remuxed(source, target, change=lambda number, packet: None, **options):
    """Copies a video's packets without decoding; `change` may alter each, or return False."""
    with av.open(source) as there, av.open(target, "w", **options) as here:
        stream = there.streams.video[0]
        copy = here.add_stream_from_template(stream)
        for number, packet in enumerate(there.demux(stream)):
            if packet.size and change(number, packet) is not False:
                packet.stream = copy
                here.mux(packet)
    return target


def retimed(source, target, times, **options):
    """Copies a video without B-frames with other times, in milliseconds; None leaves one out."""

    def change(number, packet):
        if times[number] is None:
            return False
        packet.time_base = fractions.Fraction(1, 1000)
        packet.pts = packet.dts = times[number]
        packet.duration = 0
        return True

    return remuxed(source, target, change, **options)
