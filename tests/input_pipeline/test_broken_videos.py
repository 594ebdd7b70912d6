"""Files that give no frame say why, and of those that break off the good frames are kept."""

import os
import re
import subprocess
import sys

import av
import numpy as np
import pytest

from glscl_jax.input_pipeline.decoding import video
from glscl_jax.input_pipeline.decoding.video import VideoError, read_frames
from tests.numbered_videos import SIZE, every_frame, numbered, numbers, remuxed, write


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
