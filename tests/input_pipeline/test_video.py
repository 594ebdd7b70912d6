"""Frames are read exactly: those of a rate, of a window, from any container, in any orientation.

Each test video carries its frame number in its pixels, so a test can tell which frames came back
whatever the timestamps claim.
"""

import fractions
import struct

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from glscl_jax.input_pipeline.decoding import geometry, packet_scan, packets
from glscl_jax.input_pipeline.decoding.video import read_frames
from tests.numbered_videos import SIZE, every_frame, numbers, write


def reference_positions(fps, count, rate=1, start=None, end=None):
    """Frame numbers as the reference chooses them, before it thins them out."""
    first = 0 if start is None else int(start * fps)
    last = int(min(1e9 if end is None else end * fps, count - 1))
    return list(range(first, last + 1, max(1, round(fps / rate))))


@pytest.mark.parametrize("fps", [24, 25, fractions.Fraction(30000, 1001), 30])
def test_reference_positions(tmp_path, fps):
    path = write(tmp_path / "a.mp4", 100, fps, bframes=2)
    for start, end in [(None, None), (0.7, None), (1.0, 2.5), (None, 2.0), (2.3, 90.0)]:
        frames = read_frames(path, size=SIZE, start=start, end=end)
        expected = reference_positions(float(fps), 100, start=start, end=end)
        assert numbers(frames.images) == expected
        times = np.array(expected) / float(fps) - (start or 0)
        # MP4 and x264 are exact here; a frame is 33 to 42 ms long.
        np.testing.assert_allclose(frames.times, times, atol=1e-4)


@pytest.mark.parametrize("rate", [0.5, 2, 7, 30, 100])
def test_rate(tmp_path, rate):
    path = write(tmp_path / "a.mp4", 90, 30)
    frames = read_frames(path, size=SIZE, rate=rate)
    assert numbers(frames.images) == reference_positions(30, 90, rate)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """20 s at 30 frames a second with a key frame every 25 frames, B-frames, and sound."""
    path = write(tmp_path_factory.mktemp("video") / "grouped.mp4", 600, gop=25, bframes=3)
    return path, every_frame(path)


# The file is read only, so one serves every example.
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.floats(0, 19),
    length=st.floats(0.05, 19),
    rate=st.sampled_from([0.5, 1, 3.7, 15]),
)
def test_windows_equal_full_decoding(grouped, start, length, rate):
    path, everything = grouped
    frames = read_frames(path, size=SIZE, rate=rate, start=start, end=start + length)
    expected = reference_positions(30, 600, rate, start, start + length)
    np.testing.assert_array_equal(frames.images, everything[expected])


@pytest.mark.parametrize(("gop", "seeks"), [(250, 0), (60, 2), (10, 5)])
def test_seeks_only_past_frames_nobody_wants(tmp_path, gop, seeks):
    path = write(tmp_path / "a.mp4", 180, gop=gop)
    with av.open(path) as container:
        line = packet_scan.scan(container, container.streams.video[0], None).timeline()
    wanted = line.ticks[::30]
    with av.open(path) as container:
        recorded = Recorded(container)
        decoder = packets.Decoder(recorded, 0, strict=False)
        frames = [f for _, f in packets.frames_by_timestamp(decoder, line, wanted)]
    assert [frame.pts for frame in frames] == wanted
    assert recorded.seeks == seeks


class Recorded:
    """Counts the seeks of a real container."""

    def __init__(self, container):
        self.container, self.seeks = container, 0

    def seek(self, *args, **kwargs):
        self.seeks += 1
        self.container.seek(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.container, name)


@pytest.mark.parametrize(
    ("name", "codec", "bframes"),
    [
        ("a.mkv", "libx264", 2),
        ("a.webm", "libvpx", 0),
        ("a.avi", "mpeg4", 0),
        ("b.avi", "mpeg4", 2),
        # Its timestamps come out in decoding order: only counting helps.
        ("c.avi", "libx264", 2),
        ("a.ts", "libx264", 2),
        ("a.mpg", "mpeg2video", 2),
        ("a.flv", "flv1", 0),
        ("odd : name #1 %d.mp4", "libx264", 2),
    ],
)
def test_containers(tmp_path, name, codec, bframes):
    path = write(tmp_path / name, 95, codec=codec, gop=12, bframes=bframes)
    for start, end in [(None, None), (0.5, 2.0)]:
        frames = read_frames(path, size=SIZE, start=start, end=end)
        expected = reference_positions(30, 95, 1, start, end)
        assert numbers(frames.images) == expected
        # Milliseconds in Matroska and Flash.
        times = np.array(expected) / 30 - (start or 0)
        np.testing.assert_allclose(frames.times, times, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "codec", "decoder", "settings"),
    [
        ("a.mp4", "libx264", "h264", {"bframes": 3}),
        ("a.mp4", "libx265", "hevc", {"bframes": 3}),
        ("a.webm", "libvpx", "vp8", {}),
        ("a.webm", "libvpx-vp9", "vp9", {}),
        ("a.mp4", "libsvtav1", "libdav1d", {}),
        ("a.mp4", "mpeg4", "mpeg4", {"bframes": 2}),
    ],
)
def test_codecs(tmp_path, name, codec, decoder, settings):
    path = write(tmp_path / name, 95, codec=codec, shape=(96, 96), **settings)
    with av.open(path) as container:
        assert container.streams.video[0].codec_context.name == decoder
    everything = every_frame(path)
    for rate, start, end in [(1, None, None), (7, 0.4, 2.0)]:
        frames = read_frames(path, size=SIZE, rate=rate, start=start, end=end)
        expected = reference_positions(30, 95, rate, start, end)
        assert numbers(frames.images) == expected
        oracle = [fitted(everything[number], SIZE) for number in expected]
        np.testing.assert_array_equal(frames.images, oracle)
        assert frames.fault is None


def test_frames_that_nothing_leans_on_are_not_decoded(tmp_path):
    path = write(tmp_path / "a.mp4", 90, bframes=3)
    with av.open(path) as container:
        decoded = list(packets.Decoder(container, 0, strict=False).good_frames([]))
    assert 20 < len(decoded) < 60
    assert numbers(read_frames(path, size=SIZE, rate=30).images) == list(range(90))


def test_variable_frame_rate_by_timestamps(tmp_path):
    # 10 frames a second, then one shown for three seconds, then 25 a second.
    pts = [*range(0, 1000, 100), *range(4000, 6000, 40)]
    path = write(tmp_path / "a.mp4", len(pts), pts=pts)

    def on_screen(time):
        return max(number for number, start in enumerate(pts) if start <= 1000 * time + 1e-6)

    for start, end in [(None, None), (0.95, None), (0.5, 4.5), (2.0, 3.9)]:
        frames = read_frames(path, size=SIZE, rate=2, start=start, end=end)
        stop = 6.0 if end is None else end
        times = [t for t in np.arange(start or 0, stop + 1e-9, 0.5) if t < 6.0]
        expected = [on_screen(time) for time in times]
        assert numbers(frames.images) == expected
        np.testing.assert_allclose(frames.times, np.array(pts)[expected] / 1000 - (start or 0))
    # Counting frames would have it elsewhere: the mean rate is 10 frames a second.
    assert numbers(read_frames(path, size=SIZE).images)[2:4] == [9, 9]


def test_trimmed_without_encoding_shows_what_players_show(tmp_path):
    # `ffmpeg -ss -c copy` keeps the frames back to the key frame and hides them by an edit list.
    whole = write(tmp_path / "whole.mp4", 120, gop=50)
    trimmed = tmp_path / "trimmed.mp4"
    hidden = 20
    with av.open(whole) as source, av.open(trimmed, "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        ticks = int(1 / (30 * stream.time_base))
        for packet in source.demux(stream):
            if packet.dts is not None and packet.pts >= 50 * ticks:
                packet.pts -= (50 + hidden) * ticks
                packet.dts -= (50 + hidden) * ticks
                packet.stream = copy
                target.mux(packet)
    frames = read_frames(trimmed, size=SIZE)
    assert numbers(frames.images) == [50 + hidden, 50 + hidden + 30]
    np.testing.assert_allclose(frames.times, [0, 1])


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, -1), (180, 2), (270, 1)])
def test_rotation(tmp_path, degrees, turns):
    path = write(tmp_path / "a.mp4", 5, shape=(SIZE, 64))
    raw = every_frame(path)[0]
    # The header's matrix turns the picture clockwise: what a telephone held upright writes.
    cos, sin = (round(f(np.radians(degrees))) for f in (np.cos, np.sin))
    matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    data = bytearray(path.read_bytes())
    struct.pack_into(">9i", data, data.index(b"tkhd") + 4 + 40, *matrix)
    path.write_bytes(data)
    frames = read_frames(path, size=SIZE)
    np.testing.assert_array_equal(frames.images[0], fitted(np.rot90(raw, turns), SIZE))


def fitted(image, size):
    """Resize and centre crop as torchvision's Resize and CenterCrop on a Pillow picture."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    width, height = picture.size
    if width < height:
        picture = picture.resize((size, int(size * height / width)), Image.BICUBIC)
    else:
        picture = picture.resize((int(size * width / height), size), Image.BICUBIC)
    width, height = picture.size
    top, left = round((height - size) / 2.0), round((width - size) / 2.0)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("shape", [(48, 48), (50, 86), (131, 64), (240, 322), (48, 97)])
@pytest.mark.parametrize("size", [48, 33])
def test_resize_and_crop(tmp_path, shape, size):
    shape = tuple(side // 2 * 2 for side in shape)  # what yuv420p can hold
    path = write(tmp_path / "a.mp4", 2, shape=shape)
    frames = read_frames(path, size=size)
    assert frames.images.shape == (1, size, size, 3)
    assert frames.images.dtype == np.uint8
    np.testing.assert_array_equal(frames.images[0], fitted(every_frame(path)[0], size))


def test_odd_sides():
    # Pillow knows the answer for any shape; x264 cannot encode these.
    rng = np.random.default_rng(0)
    for shape in [(51, 80), (97, 49), (48, 49), (1, 9)]:
        image = rng.integers(256, size=(*shape, 3), dtype=np.uint8)
        np.testing.assert_array_equal(geometry.fit(image, 48), fitted(image, 48))


def test_titles_of_any_encoding(tmp_path):
    path = write(tmp_path / "a.mp4", 31, metadata={"title": "Zebra"})
    path.write_bytes(path.read_bytes().replace(b"Zebra", b"Z\xe9bra"))
    assert numbers(read_frames(path, size=SIZE).images) == [0, 30]


def test_one_frame(tmp_path):
    frames = read_frames(write(tmp_path / "a.mp4", 1), size=SIZE)
    assert numbers(frames.images) == [0]
    assert frames.times.tolist() == [0]
