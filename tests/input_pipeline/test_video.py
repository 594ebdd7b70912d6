"""Frames are read exactly, and every file that gives none says why.

Each test video carries its frame number in its pixels, so a test can tell which frames came back
whatever the timestamps claim.
"""

import fractions
import os
import re
import struct
import subprocess
import sys

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from glscl_jax.input_pipeline.decoding import geometry, packets, timeline, video
from glscl_jax.input_pipeline.decoding.video import VideoError, read_frames
from tests.numbered_videos import SIZE, every_frame, numbered, numbers, remuxed, write


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
        line = timeline.scan(container, container.streams.video[0], None).timeline()
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


def audio_only(path):
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1024):
            samples = np.sin(np.arange(start, start + 1024, dtype=np.float32) / 9)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def with_cover(path):
    """A song with a picture on its sleeve: FFmpeg calls that a video stream."""
    with av.open(path, "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = SIZE, SIZE, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(1), format="rgb24")))
        container.mux(cover.encode())
        samples = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        samples.sample_rate = 16000
        container.mux(sound.encode(samples))
        container.mux(sound.encode())
    return path


def cut(path, share, **settings):
    write(path, 300, gop=30, **settings)
    os.truncate(path, int(path.stat().st_size * share))
    return path


def damaged(path, share=1 / 3, fill=None, **settings):
    """Whole by its headers, but every packet from a share of its data on is noise, or `fill`."""
    write(path, 120, gop=10, **settings)
    data = bytearray(path.read_bytes())
    begin, end = data.index(b"mdat") + 4, data.index(b"moov") - 8
    begin += int((end - begin) * share)
    noise = np.random.default_rng(0).bytes(end - begin)
    data[begin:end] = noise if fill is None else fill * (end - begin)
    path.write_bytes(data)
    return path


def holding(path, data):
    path.write_bytes(data)
    return path


def playlist(path):
    """A playlist names other files, which nobody asked to read."""
    write(path.with_name("other.mp4"), 30)
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")
    return path


NOISE = np.random.default_rng(1).bytes(20000)
FASTSTART = {"options": {"movflags": "faststart"}}
FAULTS = {
    "missing": (lambda path: path, "no such file"),
    "folder": (lambda path: path.mkdir() or path, "a folder without numbered pictures"),
    "empty": (lambda path: holding(path, b""), "empty file"),
    "garbage": (lambda path: holding(path, NOISE), "not a video that can be read"),
    "text": (lambda path: holding(path, b"hello\n" * 50), "not a video that can be read"),
    "playlist": (playlist, "not a video that can be read"),
    "no index": (lambda path: cut(path, 0.5), "not a video that can be read"),
    "cut off early": (
        lambda path: cut(path, 0.1, **FASTSTART),
        r"not a video that can be read|truncated: 0\.\d of 10\.0 s",
    ),
    "audio only": (audio_only, "no video in it, only audio"),
    "cover": (with_cover, "no video in it, only audio"),
    "all noise": (lambda path: damaged(path, 0), r"damaged: (\d) of \1 frames lost"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(tmp_path, fault):
    make, reason = FAULTS[fault]
    with pytest.raises(VideoError, match=reason) as error:
        read_frames(make(tmp_path / "a.mp4"), size=SIZE)
    assert "\n" not in str(error.value)


def test_durations_are_the_headers(tmp_path):
    assert video.duration(write(tmp_path / "a.mp4", 90)) == pytest.approx(3.0)
    with pytest.raises(VideoError, match=r"^not a video that can be read \(Invalid data[^\n]*\)$"):
        video.duration(holding(tmp_path / "b.mp4", NOISE))
    with pytest.raises(VideoError, match="No such file"):
        video.duration(tmp_path / "gone.mp4")


# Matroska's header has no duration per stream, only one for the longest.
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize("bframes", [0, 2])
def test_of_a_file_cut_off_the_good_frames_are_kept(tmp_path, name, bframes):
    codec = "mpeg4" if name == "a.avi" else "libx264"
    path = write(tmp_path / name, 300, codec=codec, gop=30, bframes=bframes, **FASTSTART)
    whole = read_frames(path, size=SIZE, rate=3)
    assert whole.fault is None
    os.truncate(path, int(path.stat().st_size * 0.7))
    frames = read_frames(path, size=SIZE, rate=3)
    assert 5 < len(frames.images) < len(whole.images)
    np.testing.assert_array_equal(frames.images, whole.images[: len(frames.images)])
    np.testing.assert_array_equal(frames.times, whole.times[: len(frames.times)])
    seconds = re.fullmatch(r"truncated: (\d\.\d) of 10\.0 s are there", frames.fault)[1]
    assert frames.times[-1] <= float(seconds) < frames.times[-1] + 0.5


def test_window_before_the_cut_is_whole(tmp_path):
    path = cut(tmp_path / "a.mp4", 0.5, **FASTSTART)
    within = read_frames(path, size=SIZE, end=2)
    assert (numbers(within.images), within.fault) == ([0, 30, 60], None)
    assert read_frames(path, size=SIZE, end=9).fault.startswith("truncated")
    with pytest.raises(VideoError, match="truncated"):
        read_frames(path, size=SIZE, start=8, end=9)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
@pytest.mark.parametrize("fill", [None, b"\0"])
def test_of_a_damaged_tail_the_good_frames_are_kept(tmp_path, codec, fill):
    settings = {"codec": codec, "shape": (96, 96)}
    write(tmp_path / "a.mp4", 120, gop=10, **settings)
    whole = read_frames(tmp_path / "a.mp4", size=SIZE, rate=6)
    frames = read_frames(damaged(tmp_path / "b.mp4", 1 / 3, fill, **settings), size=SIZE, rate=6)
    kept = len(frames.images)
    assert 5 <= kept < len(whole.images) == 24
    np.testing.assert_array_equal(frames.images, whole.images[:kept])
    told = f"damaged: {24 - kept} of 24 frames lost, the first at {whole.times[kept]:.1f} s"
    assert frames.fault == told


def test_what_leans_on_a_damaged_frame_is_left_out(tmp_path):
    # One packet of the second group of pictures is noise: the third is whole again.
    path = write(tmp_path / "a.mp4", 90, gop=30, shape=(96, 96))
    whole = read_frames(path, size=SIZE, rate=6)
    with av.open(path) as container:
        sizes = {packet.pts: (packet.pos, packet.size) for packet in container.demux(video=0)}
    position, length = sizes[sorted(pts for pts in sizes if pts is not None)[40]]
    data = bytearray(path.read_bytes())
    data[position : position + length] = np.random.default_rng(0).bytes(length)
    path.write_bytes(data)
    frames = read_frames(path, size=SIZE, rate=6)
    good = [*range(8), *range(12, 18)]  # frames 0, 5, ... 35 and 60, 65, ...
    np.testing.assert_array_equal(frames.images, whole.images[good])
    np.testing.assert_array_equal(frames.times, whole.times[good])
    assert frames.fault == "damaged: 4 of 18 frames lost, the first at 1.3 s"


def test_window_past_the_end(tmp_path):
    path = write(tmp_path / "a.mp4", 60)
    with pytest.raises(VideoError, match=r"no frame from 5 s on: the video has 2\.0 s"):
        read_frames(path, size=SIZE, start=5)
    assert numbers(read_frames(path, size=SIZE, start=1, end=50).images) == [30]


def test_titles_of_any_encoding(tmp_path):
    path = write(tmp_path / "a.mp4", 31, metadata={"title": "Zebra"})
    path.write_bytes(path.read_bytes().replace(b"Zebra", b"Z\xe9bra"))
    assert numbers(read_frames(path, size=SIZE).images) == [0, 30]


def test_one_frame(tmp_path):
    frames = read_frames(write(tmp_path / "a.mp4", 1), size=SIZE)
    assert numbers(frames.images) == [0]
    assert frames.times.tolist() == [0]


def test_containers_are_closed(tmp_path, monkeypatch):
    opened = []
    really = av.open
    monkeypatch.setattr(av, "open", lambda *a, **k: opened.append(really(*a, **k)) or opened[-1])
    read_frames(write(tmp_path / "a.mp4", 30), size=SIZE)
    with pytest.raises(VideoError, match="damaged: 1 of 1 frames lost, the first at 3"):
        read_frames(damaged(tmp_path / "b.mp4"), size=SIZE, start=3)
    # Written, scanned and decoded; written, scanned, decoded and decoded strictly.
    assert len(opened) == 7
    for container in (*opened[1:3], *opened[4:]):
        with pytest.raises(AssertionError, match="not open"):
            list(container.demux())


def test_memory_stays_flat(tmp_path):
    # In a process of its own, where nothing else takes memory. Good, cut off and unreadable ones.
    paths = [
        write(tmp_path / "a.mp4", 2),
        cut(tmp_path / "b.mp4", 0.5, **FASTSTART),
        holding(tmp_path / "c.mp4", NOISE),
    ]
    done = subprocess.run(
        [sys.executable, "-c", OPENS, *map(str, paths)], capture_output=True, text=True, check=True
    )
    after_100, after_500 = map(int, done.stdout.split())
    # A container that stays open keeps some 100 KB, its decoder more.
    assert after_500 - after_100 < 8 << 20


OPENS = """
import os, pathlib, sys
from glscl_jax.input_pipeline.decoding.video import VideoError, read_frames
from tests.numbered_videos import SIZE, every_frame, numbered, numbers, remuxed, write

good, cut, unreadable = map(pathlib.Path, sys.argv[1:])
for opened in range(1, 501):
    path = cut if opened % 5 == 0 else unreadable if opened % 2 == 0 else good
    try:
        frames = read_frames(path, size=16)
        assert (path == cut) == bool(frames.fault)
    except VideoError:
        assert path == unreadable
    if opened in (100, 500):
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        print(pages * os.sysconf("SC_PAGE_SIZE"))
"""


def refreshing(path, count=200):
    """10 frames a second of which the first alone is whole: the others repair a stripe each."""
    params = "intra-refresh=1:keyint=20:scenecut=0"
    ground = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    with av.open(path, "w") as container:
        options = {"g": "20", "bf": "0", "x264-params": params}
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.height = stream.width = 96
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            picture = numbered(number, 96, 96)
            picture[:, 80:] = np.roll(ground, number, 0)[:, 80:]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_key_frames_that_are_not_whole_are_not_begun_with(tmp_path, name):
    path = refreshing(tmp_path / name)
    with av.open(path) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0)) == 10
    everything = every_frame(path)
    for start in range(19):
        frames = read_frames(path, size=96, start=start, end=start + 1)
        np.testing.assert_array_equal(frames.images, everything[[10 * start, 10 * start + 10]])
        assert frames.fault is None


def test_of_a_stream_cut_into_a_refresh_the_green_frames_are_left_out(tmp_path):
    path = refreshing(tmp_path / "a.mp4")
    cut_short = remuxed(path, tmp_path / "a.mkv", lambda number, _: number >= 80)
    frames = read_frames(cut_short, size=96, rate=10)
    # Whole again after two refreshes.
    np.testing.assert_array_equal(frames.images, every_frame(path)[120:])
    assert frames.fault == "damaged: 40 of 120 frames lost, the first at 0.0 s"
